//! What the running agent can no longer do: its [`rights`] and the system [`calls`] it may make
//! shrink to what it needs once the kernel programs run.
//!
//! From then on the agent reads strangers' requests. Were one of them to take over the process, it
//! would find no capability outside of the census's thread, and no call that starts a program,
//! writes a file or makes a socket.

mod rights;
mod calls;

pub use self::{
    calls::{CallsError, confine, confine_this_thread},
    rights::{RightsError, Role, drop_to, forbid_new},
};

use std::{io, sync::mpsc::sync_channel, thread::JoinHandle};

use tracing::warn;

use crate::logging::chain;

/// [`drop_to`], where a thread that keeps what it had is told of, and goes on.
pub fn give_up(role: Role) {
    if let Err(error) = drop_to(role) {
        warn!(
            ?role,
            error = chain(&error),
            "a thread keeps its capabilities"
        );
    }
}

/// Starts a thread of this role, and returns once it has given up what the role does without.
///
/// # Errors
///
/// Where the system has no thread left.
pub fn spawn(
    role: Role,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (given_up, has_given_up) = sync_channel(0);
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            give_up(role);
            // Fails only where nobody waits any more.
            let _nobody = given_up.send(());
            work();
        })?;
    // Fails only where the thread has ended, which whoever joins it is told.
    let _ended = has_given_up.recv();
    Ok(thread)
}
