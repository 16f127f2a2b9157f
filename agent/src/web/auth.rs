//! Basic authentication.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::error::Unspecified;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{users::Users, verified::Verified};

/// Passwords compared with their hashes at once, for all addresses together. Each takes a processor
/// for 50 ms or more, and who has no credentials can ask for it: with one, they can keep busy no
/// more than one.
const AT_ONCE: usize = 1;

/// Requests whose password is compared or waits for that, at most.
const WAITING: usize = 32;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Its user and password are right, or there are no users.
    Admitted,
    /// It bears no credentials, or wrong ones.
    Unknown,
    /// Too many others' passwords are being compared.
    Busy,
}

/// Who compares passwords. What it remembers outlives a change of the configuration, and no longer
/// holds where the user's hash has changed.
pub(super) struct Gatekeeper {
    verified: Mutex<Verified>,
    at_once: Arc<Semaphore>,
    waiting: Semaphore,
    patience: Duration,
}

impl Gatekeeper {
    /// # Errors
    ///
    /// Where the system gives no random bytes.
    pub(super) fn new() -> Result<Self, Unspecified> {
        Ok(Self {
            verified: Mutex::new(Verified::new()?),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Semaphore::new(WAITING),
            patience: PATIENCE,
        })
    }

    /// Judges the value of the header `Authorization`.
    pub(super) async fn admit(&self, users: &Users, header: Option<&HeaderValue>) -> Admission {
        if users.is_empty() {
            return Admission::Admitted;
        }
        let Some((user, password)) = header.and_then(credentials) else {
            return Admission::Unknown;
        };
        let (hash, known) = users.hash(&user);
        let tag = self.verified().tag(&user, &password, hash);
        if self.verified().contains(&tag) {
            return Admission::Admitted;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Admission::Busy;
        };
        let turn = timeout(self.patience, Arc::clone(&self.at_once).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Admission::Busy;
        };
        // Another request with the same credentials may have been before this one.
        if self.verified().contains(&tag) {
            return Admission::Admitted;
        }
        let hash = hash.to_owned();
        let compared = spawn_blocking(move || {
            // Until the end of the work: it goes on where the request is given up.
            let _turn = turn;
            bcrypt::verify(password, &hash)
        });
        let right = matches!(compared.await, Ok(Ok(true)));
        if !(right && known) {
            return Admission::Unknown;
        }
        self.verified().insert(tag);
        Admission::Admitted
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The user and the password of a header (RFC 7617).
fn credentials(header: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut user = STANDARD.decode(encoded.trim()).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon).split_off(1);
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::yaml::Document;

    /// `test` at cost 4.
    const HASH: &str = "$2y$04$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6";

    fn users() -> Users {
        let text = format!("alice: {HASH}\nbob: {HASH}\n");
        let Ok(document) = Document::parse(text) else {
            unreachable!("this is YAML")
        };
        Users::read(&document.root()).unwrap()
    }

    fn header(user_and_password: &str) -> HeaderValue {
        let encoded = STANDARD.encode(user_and_password);
        HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()
    }

    #[tokio::test]
    async fn right_credentials_pass_and_are_remembered() {
        let keeper = Gatekeeper::new().unwrap();
        let users = users();
        for (credentials, admission) in [
            ("alice:test", Admission::Admitted),
            ("bob:test", Admission::Admitted),
            ("alice:tset", Admission::Unknown),
            ("alice:", Admission::Unknown),
            ("mallory:test", Admission::Unknown),
            (":", Admission::Unknown),
        ] {
            let judged = keeper.admit(&users, Some(&header(credentials))).await;
            assert_eq!(judged, admission, "{credentials}");
        }
        assert_eq!(keeper.admit(&users, None).await, Admission::Unknown);
        // With no turn left, those remembered pass, and others are told so.
        let _turns = keeper
            .waiting
            .try_acquire_many(u32::try_from(WAITING).unwrap())
            .unwrap();
        let judged = keeper.admit(&users, Some(&header("alice:test"))).await;
        assert_eq!(judged, Admission::Admitted);
        let judged = keeper.admit(&users, Some(&header("alice:tset"))).await;
        assert_eq!(judged, Admission::Busy);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let mut keeper = Gatekeeper::new().unwrap();
        keeper.patience = Duration::from_millis(1);
        let _turns = keeper
            .at_once
            .acquire_many(u32::try_from(AT_ONCE).unwrap())
            .await
            .unwrap();
        let judged = keeper.admit(&users(), Some(&header("alice:test"))).await;
        assert_eq!(judged, Admission::Busy);
    }

    #[tokio::test]
    async fn without_users_everyone_passes() {
        let keeper = Gatekeeper::new().unwrap();
        assert_eq!(
            keeper.admit(&Users::default(), None).await,
            Admission::Admitted
        );
    }

    #[test]
    fn only_whole_headers_bear_credentials() {
        let whole = credentials(&header("a:b:c"));
        assert_eq!(whole, Some((b"a".to_vec(), b"b:c".to_vec())));
        for broken in [
            "",
            "Basic",
            "Basic ",
            "Basic YQ==",
            "Bearer YTpi",
            "Basic %%%",
            "YTpi",
        ] {
            assert_eq!(
                credentials(&HeaderValue::from_static(broken)),
                None,
                "{broken}"
            );
        }
        let lower = HeaderValue::from_static("basic YTpi");
        assert_eq!(credentials(&lower), Some((b"a".to_vec(), b"b".to_vec())));
    }
}
