//! The configuration in force, read again when its files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

use super::{
    auth::Gatekeeper,
    config::{Config, ConfigError},
    files::Files,
};

/// How often the files are looked at. They are read once they have stayed as they are from one
/// look to the next, so that none is taken half written.
const LOOK: Duration = Duration::from_secs(1);

/// The configuration in force.
pub struct Live {
    path: PathBuf,
    config: Mutex<Arc<Config>>,
    watched: Mutex<Watched>,
    pub(super) gatekeeper: Gatekeeper,
}

/// The configuration cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes, which remembering who was verified takes")]
    Random,
}

#[derive(Default)]
struct Watched {
    /// As they were when they were last read.
    read: Files,
    /// As they were at the last look, where that was another way.
    changed: Option<Files>,
}

impl Watched {
    /// Whether files that look so now shall be read.
    fn settled(&mut self, now: Files) -> bool {
        if now == self.read {
            self.changed = None;
            return false;
        }
        let settled = self.changed.as_ref() == Some(&now);
        self.changed = Some(now);
        settled
    }
}

impl Live {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Where it is broken: what was never good is not served.
    pub fn open(path: &Path) -> Result<Self, LiveError> {
        let mut read = Files::default();
        let config = Config::read_into(path, &mut read)?;
        let live = Self {
            path: path.to_owned(),
            config: Mutex::new(Arc::new(config)),
            watched: Mutex::new(Watched {
                read,
                changed: None,
            }),
            gatekeeper: Gatekeeper::new().map_err(|_| LiveError::Random)?,
        };
        live.announce("the web configuration is in force");
        Ok(live)
    }

    /// The last good configuration.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files for ever, and reads them when they have changed.
    pub async fn follow(self: Arc<Self>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let live = Arc::clone(&self);
            // Files may be slow. A look that panicked has been told of, and the next may not.
            let _panicked = spawn_blocking(move || live.look()).await;
        }
    }

    fn look(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = watched.read.now();
        if !watched.settled(now) {
            return;
        }
        let mut read = Files::default();
        let config = Config::read_into(&self.path, &mut read);
        *watched = Watched {
            read,
            changed: None,
        };
        drop(watched);
        let config = match config {
            Ok(config) => config,
            Err(error) => {
                error!("{error}; the last good web configuration stays in force");
                return;
            }
        };
        if let Some(lost) = lost(&self.config(), &config) {
            error!(
                "{}: it would serve without {lost}, which takes a restart; the last good web \
                 configuration stays in force",
                self.path.display()
            );
            return;
        }
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.announce("the changed web configuration is in force");
    }

    fn announce(&self, what: &'static str) {
        let config = self.config();
        info!(
            file = %self.path.display(),
            tls = config.tls.is_some(),
            client_certificates = config.requires_certificate(),
            basic_auth = !config.users.is_empty(),
            "{what}"
        );
    }
}

/// The protection that was there and would no longer be. A file that was emptied, or cut short by
/// a full disk, must not open what was closed.
fn lost(old: &Config, new: &Config) -> Option<&'static str> {
    if old.tls.is_some() && new.tls.is_none() {
        Some("TLS")
    } else if old.requires_certificate() && !new.requires_certificate() {
        Some("clients' certificates")
    } else if !old.users.is_empty() && new.users.is_empty() {
        Some("users")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str =
        "basic_auth_users: {alice: $2y$04$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6}\n";
    const BOB: &str =
        "basic_auth_users: {bob: $2y$04$mA4kDf1YEohxG7szHhrgye2KFtpes.3r1Nr4/BsPHJjRKs8/iGdR6}\n";

    fn knows(live: &Live, user: &str) -> bool {
        live.config().users.hash(user.as_bytes()).1
    }

    #[test]
    fn a_good_change_takes_effect_once_it_has_settled_and_a_bad_one_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        std::fs::write(&path, ALICE).unwrap();
        let live = Live::open(&path).unwrap();
        live.look();
        std::fs::write(&path, BOB).unwrap();
        live.look();
        assert!(knows(&live, "alice"), "not before it has settled");
        live.look();
        assert!(knows(&live, "bob"));
        for bad in [
            "",
            "basic_auth_users: {}",
            "basic_auth_users: {carol: x}",
            "{",
        ] {
            std::fs::write(&path, bad).unwrap();
            live.look();
            live.look();
            assert!(knows(&live, "bob"), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        live.look();
        live.look();
        assert!(knows(&live, "bob"));
        std::fs::write(&path, ALICE).unwrap();
        live.look();
        live.look();
        assert!(knows(&live, "alice"));
    }

    #[test]
    fn a_file_that_is_broken_at_the_start_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.yml");
        assert!(Live::open(&path).is_err());
        std::fs::write(&path, "no: such key").unwrap();
        assert!(Live::open(&path).is_err());
    }
}
