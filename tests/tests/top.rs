//! `agent top` in a real terminal: a leak is found, opened and named.

use std::{
    net::Shutdown,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tests::{
    daemon::binary,
    netns::Netns,
    place::{Family, Place},
    wait,
};

/// A terminal of 80 columns and 24 rows, in a tmux server of its own. Its programs end with it.
struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// Runs a command line in it.
    fn run(line: &str) -> Result<Self> {
        let terminal = Self {
            directory: tempfile::tempdir()?,
        };
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            line,
        ])?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        let output = command
            .arg("-S")
            .arg(self.directory.path().join("tmux"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("tmux cannot be run")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {errors}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn press(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Waits until the screen shows all of these, and returns it.
    fn shows(&self, words: &[&str]) -> Result<String> {
        let mut screen = String::new();
        let shown = wait::until(&format!("{words:?}"), || {
            screen = self.tmux(&["capture-pane", "-p"])?;
            Ok(words.iter().all(|word| screen.contains(word)))
        });
        shown.with_context(|| format!("the screen:\n{screen}"))?;
        Ok(screen)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_leak_is_found_opened_and_named_by_two_keys() -> Result<()> {
    let netns = Netns::new()?;
    let _inhabitant = netns.inhabit()?;
    let place = Place::new(Family::V4);
    let held = netns.run(|| place.connections(30))?;
    for client in &held.clients {
        client.shutdown(Shutdown::Write)?;
    }
    let nobody = tempfile::tempdir()?;
    let line = format!(
        "{} top --close-wait-leak-after 1s --api-socket {}",
        binary()?.display(),
        nobody.path().join("api.sock").display()
    );
    let terminal = Terminal::run(&line)?;
    let port = place.port.to_string();
    terminal.shows(&["CLOSE_WAIT", "30 sockets in CLOSE_WAIT", "Enter findings"])?;
    terminal.press("Enter")?;
    terminal.shows(&["STUCK IN", "CLOSE_WAIT"])?;
    terminal.press("Enter")?;
    let screen = terminal.shows(&["30 sockets", "What to do", "application", &port])?;
    let own = format!("pid {}", std::process::id());
    ensure!(screen.contains(&own), "no {own} in\n{screen}");
    terminal.press("F10")?;
    // The terminal ends with its only program.
    wait::until("the end", || Ok(terminal.tmux(&["list-sessions"]).is_err()))
}
