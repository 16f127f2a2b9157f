//! Credentials that were verified a while ago, so that a scrape does not cost a bcrypt each time.

use std::collections::VecDeque;

use ring::{
    digest::SHA256_OUTPUT_LEN,
    error::Unspecified,
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};

/// Credentials remembered at most; those used longest ago are forgotten first.
const MOST: usize = 100;

/// What stands for a user, a password and the hash they were verified by. It is keyed anew at
/// every start, so that it tells nothing of the password to who reads the memory.
pub(super) type Tag = [u8; SHA256_OUTPUT_LEN];

/// The credentials remembered. Only good ones are: guesses cannot push them out.
pub(super) struct Verified {
    key: Key,
    tags: VecDeque<Tag>,
}

impl Verified {
    /// # Errors
    ///
    /// Where the system gives no random bytes.
    pub(super) fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            key: Key::generate(HMAC_SHA256, &SystemRandom::new())?,
            tags: VecDeque::new(),
        })
    }

    pub(super) fn tag(&self, user: &[u8], password: &[u8], hash: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user, password, hash.as_bytes()] {
            context.update(&part.len().to_ne_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// Whether these credentials are remembered; they then count as used.
    pub(super) fn contains(&mut self, tag: &Tag) -> bool {
        // Tags are compared in varying time: nobody outside can choose or foretell them.
        let Some(place) = self.tags.iter().position(|known| known == tag) else {
            return false;
        };
        if let Some(tag) = self.tags.remove(place) {
            self.tags.push_front(tag);
        }
        true
    }

    pub(super) fn insert(&mut self, tag: Tag) {
        if !self.contains(&tag) {
            self.tags.truncate(MOST - 1);
            self.tags.push_front(tag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_are_remembered_and_those_in_use_stay() {
        let mut verified = Verified::new().unwrap();
        let tags: Vec<_> = (0_u8..150).map(|n| verified.tag(b"u", &[n], "h")).collect();
        for tag in &tags {
            verified.insert(*tag);
            assert!(verified.contains(&tags[0]));
        }
        let left = tags.iter().filter(|tag| verified.contains(tag)).count();
        assert_eq!((left, verified.tags.len()), (MOST, MOST));
        assert!(verified.contains(&tags[149]) && !verified.contains(&tags[1]));
    }

    #[test]
    fn each_part_counts_and_parts_do_not_run_together() {
        let verified = Verified::new().unwrap();
        let parts = [
            ("ab", "c", "h"),
            ("a", "bc", "h"),
            ("ab", "c", "i"),
            ("ab", "d", "h"),
        ];
        let tags: std::collections::BTreeSet<_> = parts
            .iter()
            .map(|(user, password, hash)| verified.tag(user.as_bytes(), password.as_bytes(), hash))
            .collect();
        assert_eq!(tags.len(), parts.len());
        let other = Verified::new().unwrap();
        assert_ne!(other.tag(b"ab", b"c", "h"), verified.tag(b"ab", b"c", "h"));
    }
}
