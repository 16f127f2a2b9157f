//! A second agent at the same time.

use anyhow::{Context as _, Result};
use tests::daemon::{Daemon, RUN, output};

use super::{
    scene::{self, OPTIONS, PLAINLY, Scene, socket_of},
    verdict,
};

/// One that would take the first one's socket is refused; with one of its own it tells the same.
pub(super) fn a_second_comes(scene: &mut Scene) -> Result<()> {
    let socket = socket_of(scene.api_socket()?);
    let mut command = scene::command(&PLAINLY)?;
    let refused = output(command.args(RUN).args(["--api-socket", &socket]))?;
    verdict::is_refused(
        &refused,
        &[&socket, "another agent does; stop it", "--api-socket"],
    )?;
    scene
        .api("/api/v1/snapshot")
        .context("the first one's socket")?;

    let folder = tempfile::tempdir()?;
    let own = socket_of(folder.path().to_str().context("a name without a text")?);
    let mut command = scene::command(&PLAINLY)?;
    command.args(RUN).args(OPTIONS).args(["--api-socket", &own]);
    let second = Daemon::spawn(&mut command)?;
    scene.known.minisockets()?;
    verdict::told_rightly(&*scene, |scene| scene.next_census())?;
    verdict::told_rightly(&*scene, |_| scene::next_census(|| second.scrape()))?;
    verdict::log_says(&second.log(), &[])?;
    scene.kept.push(Box::new((second, folder)));
    Ok(())
}
