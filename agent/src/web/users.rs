//! Who may read, and the bcrypt hashes of their passwords.

use std::{fmt, str::FromStr as _};

use super::yaml::{Fault, Node};

/// The costs a hash may have. From 16 on, each wrong guess would take seconds of a processor.
const COSTS: std::ops::RangeInclusive<u32> = 4..=15;

const HASH_IT: &str = "make one with `htpasswd -nBC 10 \"\" | tr -d ':\\n'` and write it in quotes";

/// The users of `basic_auth_users`; where there is none, everyone may read.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Users {
    hashes: Vec<(String, String)>,
    stand_in: String,
}

/// The hash of no known password, as costly to compare with as any user's, so that time does not
/// tell who is a user.
fn stand_in(cost: u32) -> String {
    format!("$2b${cost:02}${}", ".".repeat(53))
}

impl Users {
    /// Reads `basic_auth_users`.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Fault> {
        let mut hashes = Vec::new();
        let mut most = *COSTS.start();
        for (name, node) in node.table()? {
            let hash = node.text()?;
            let cost = match bcrypt::HashParts::from_str(&hash) {
                Ok(parts) => parts.get_cost(),
                // Its own words quote nothing of the hash.
                Err(error) => {
                    return Err(node.fault(format!(
                        "the password of this user is no bcrypt hash ({error}): {HASH_IT}"
                    )));
                }
            };
            if !COSTS.contains(&cost) {
                let (least, most) = (COSTS.start(), COSTS.end());
                return Err(node.fault(format!(
                    "a bcrypt hash of cost {cost} is refused, since everyone can have it computed \
                     again by a wrong password: {least} to {most} is accepted, 10 or 12 is usual; \
                     {HASH_IT}"
                )));
            }
            if name.contains(':') {
                return Err(node.fault(
                    "a user's name cannot hold a colon, which ends it in a request: choose another",
                ));
            }
            most = most.max(cost);
            hashes.push((name, hash));
        }
        Ok(Self {
            hashes,
            stand_in: stand_in(most),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash to compare a password with, and whether there is such a user.
    pub(super) fn hash(&self, user: &[u8]) -> (&str, bool) {
        let mut hashes = self.hashes.iter();
        match hashes.find(|(name, _)| name.as_bytes() == user) {
            Some((_, hash)) => (hash, true),
            None => (&self.stand_in, false),
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} users", self.hashes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stand_in_is_a_hash_of_the_cost_asked_for() {
        let parts = bcrypt::HashParts::from_str(&stand_in(12)).unwrap();
        assert_eq!(parts.get_cost(), 12);
        assert!(!bcrypt::verify("", &stand_in(4)).unwrap());
    }

    #[test]
    fn hashes_are_not_shown() {
        let users = Users {
            hashes: vec![("alice".to_owned(), "$2y$secret".to_owned())],
            stand_in: stand_in(4),
        };
        assert_eq!(format!("{users:?}"), "1 users");
    }
}
