//! A YAML file read key by key, so that an error can name the line and the key.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml_ng::{Deserializer, Value};

/// What is wrong with a key's value. It never quotes a value that may be a secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The keys that lead to it, from the top of the file.
    pub(super) key: Vec<String>,
    /// What is wrong, why, and what to write instead.
    pub(super) says: String,
}

/// A text that is YAML.
pub(super) struct Document {
    text: String,
    root: Value,
}

impl Document {
    /// Parses the text; where it is no YAML, tells the line and why.
    pub(super) fn parse(text: String) -> Result<Self, (Option<usize>, String)> {
        let parsed = serde_yaml_ng::from_str::<Value>(&text);
        let merged = parsed.and_then(|mut root| root.apply_merge().map(|()| root));
        match merged {
            Ok(root) => Ok(Self { text, root }),
            Err(error) => Err((
                error.location().map(|location| location.line()),
                format!("this is no YAML: {error}"),
            )),
        }
    }

    pub(super) fn root(&self) -> Node<'_> {
        Node {
            value: &self.root,
            key: Vec::new(),
        }
    }

    /// The line a key stands in, or that of the nearest part of the file that holds it.
    pub(super) fn line(&self, key: &[String]) -> Option<usize> {
        // The parser tells where it was as soon as a visitor refuses to go on.
        let found = Seek(key).deserialize(Deserializer::from_str(&self.text));
        Some(found.err()?.location()?.line())
    }
}

/// A value of the file, and where it stands.
#[derive(Clone)]
pub(super) struct Node<'a> {
    value: &'a Value,
    key: Vec<String>,
}

impl<'a> Node<'a> {
    pub(super) fn fault(&self, says: impl Into<String>) -> Fault {
        Fault {
            key: self.key.clone(),
            says: says.into(),
        }
    }

    /// What stands under a key; nothing where it is absent, null or empty text, as the toolkit
    /// takes it.
    pub(super) fn get(&self, key: &str) -> Option<Self> {
        self.entries()
            .find(|(name, _)| name == key)
            .map(|(_, node)| node)
            .filter(|node| {
                !node.value.is_null() && node.value.as_str().is_none_or(|text| !text.is_empty())
            })
    }

    /// Refuses all that is not a table, and keys other than these.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Fault> {
        for (name, node) in self.table()? {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                return Err(node.fault(format!("there is no such key; those known here: {known}")));
            }
        }
        Ok(())
    }

    /// The entries of a table, in order.
    pub(super) fn table(&self) -> Result<Vec<(String, Self)>, Fault> {
        match self.value {
            Value::Null | Value::Mapping(_) => Ok(self.entries().collect()),
            _ => Err(self.fault("a table is wanted here: write `key: value` lines below it")),
        }
    }

    /// A text; numbers and truth values count as what they are written as.
    pub(super) fn text(&self) -> Result<String, Fault> {
        scalar(self.value).ok_or_else(|| self.fault("a text is wanted here: write it in quotes"))
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        let truth = self.value.as_bool();
        truth.ok_or_else(|| self.fault("a truth value is wanted here: write true or false"))
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self) -> Result<u64, Fault> {
        let number = self.value.as_u64();
        number.ok_or_else(|| self.fault("a whole number is wanted here, 0 or more"))
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<Vec<Self>, Fault> {
        let items = self
            .value
            .as_sequence()
            .ok_or_else(|| self.fault("a list is wanted here: write `- item` lines below it"))?;
        let items = items.iter().enumerate();
        Ok(items
            .map(|(i, item)| self.below(i.to_string(), item))
            .collect())
    }

    fn entries(&self) -> impl Iterator<Item = (String, Self)> + use<'a, '_> {
        let entries = self.value.as_mapping().into_iter().flatten();
        entries.map(|(key, value)| {
            let key = scalar(key).unwrap_or_else(|| "?".to_owned());
            (key.clone(), self.below(key, value))
        })
    }

    fn below(&self, key: String, value: &'a Value) -> Self {
        let mut path = self.key.clone();
        path.push(key);
        Self { value, key: path }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Walks to where these keys lead and fails there.
#[derive(Clone, Copy)]
struct Seek<'k>(&'k [String]);

/// Fails at the key itself where it is the last to be found.
struct SeekKey<'k>(&'k [String]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    /// Whether it is the key looked for, which others follow.
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<bool, D::Error> {
        from.deserialize_any(self)
    }
}

impl SeekKey<'_> {
    fn judge<E: serde::de::Error>(&self, key: impl Into<Value>) -> Result<bool, E> {
        match self.0.split_first() {
            Some((wanted, rest)) if scalar(&key.into()).as_ref() == Some(wanted) => {
                if rest.is_empty() {
                    Err(E::custom("found"))
                } else {
                    Ok(true)
                }
            }
            _ => Ok(false),
        }
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        self.judge(key)
    }

    fn visit_bool<E: serde::de::Error>(self, key: bool) -> Result<bool, E> {
        self.judge(key)
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<bool, E> {
        self.judge(key)
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<bool, E> {
        self.judge(key)
    }

    fn visit_f64<E: serde::de::Error>(self, key: f64) -> Result<bool, E> {
        self.judge(key)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a place in the file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(found) = map.next_key_seed(SeekKey(self.0))? {
            if found && let Some((_, rest)) = self.0.split_first() {
                map.next_value_seed(Seek(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("not found: the nearest is this table"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((wanted, rest)) = self.0.split_first() {
            for _ in 0..wanted.parse::<usize>().unwrap_or_default() {
                items.next_element::<IgnoredAny>()?;
            }
            items.next_element_seed(Seek(rest))?;
        }
        Err(A::Error::custom("not found: the nearest is this list"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
one:
  two: 2
  three:
    - a
    - b
four: &anchor {five: x,
  six: y}
seven:
  <<: *anchor
";

    #[test]
    fn a_key_is_found_in_its_line() {
        let document = Document::parse(TEXT.to_owned()).unwrap();
        for (key, line) in [
            (&["one"][..], 2),
            (&["one", "two"], 3),
            (&["one", "three"], 4),
            (&["one", "three", "1"], 6),
            (&["four", "six"], 8),
            // What is not there is looked for where it should be.
            (&["one", "eight"], 3),
        ] {
            let key: Vec<_> = key.iter().map(ToString::to_string).collect();
            assert_eq!(document.line(&key), Some(line), "{key:?}");
        }
    }

    #[test]
    fn a_merged_table_has_its_keys() {
        let document = Document::parse(TEXT.to_owned()).unwrap();
        let five = document.root().get("seven").unwrap().get("five").unwrap();
        assert_eq!(five.text().unwrap(), "x");
    }

    #[test]
    fn numbers_and_truth_are_text_where_text_is_wanted() {
        let document = Document::parse("a: 0\nb: true\nc: ''\nd:\n".to_owned()).unwrap();
        let root = document.root();
        assert_eq!(root.get("a").unwrap().text().unwrap(), "0");
        assert_eq!(root.get("b").unwrap().text().unwrap(), "true");
        assert!(root.get("c").is_none() && root.get("d").is_none());
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for text in ["a: b\n  c: d\n", "a: [1\n", "a: 1\na: 2\n", "- *nothing\n"] {
            let (line, says) = Document::parse(text.to_owned()).err().unwrap();
            assert!(line.is_some(), "{text}: {says}");
            assert!(says.starts_with("this is no YAML: "), "{says}");
        }
    }
}
