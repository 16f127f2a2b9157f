//! Text that rows are filtered and searched by. Pure.

/// Words, all of which a row must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(String);

impl Filter {
    /// As it was typed.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it lets everything pass.
    pub(super) fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }

    /// Another character. It stays short enough to be shown.
    pub(super) fn push(&mut self, sign: char) {
        if self.0.len() < 60 && !sign.is_control() {
            self.0.push(sign);
        }
    }

    /// Takes the last character away.
    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    /// Takes all away.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Exactly this text.
    pub(super) fn set(&mut self, text: &str) {
        text.clone_into(&mut self.0);
    }

    /// Whether each of its words is within one of the fields, in capitals or not.
    pub(super) fn matches(&self, fields: &[&str]) -> bool {
        let mut words = self.0.split_whitespace();
        words.all(|word| fields.iter().any(|field| contains(field, word)))
    }
}

fn contains(field: &str, word: &str) -> bool {
    let (field, word) = (field.as_bytes(), word.as_bytes());
    let mut windows = field.windows(word.len());
    windows.any(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter(text.to_owned())
    }

    #[test]
    fn each_word_is_in_some_field() {
        let fields = ["unit:api.service", "8080", "drained"];
        for text in ["", "  ", "API", "8080 api", "raine unit"] {
            assert!(filter(text).matches(&fields), "{text}");
        }
        for text in ["db", "api 9090", "apiservice"] {
            assert!(!filter(text).matches(&fields), "{text}");
        }
    }

    #[test]
    fn it_stays_short() {
        let mut filter = Filter::default();
        filter.push('\u{7}');
        assert!(filter.is_empty());
        for _ in 0..1_000 {
            filter.push('é');
        }
        assert!(filter.text().len() <= 61);
    }
}
