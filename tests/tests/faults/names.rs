//! Processes and cgroups whose names are made to break what shows them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tests::{
    cgroup::Cgroup,
    daemon::{binary, output},
    netns::Netns,
    prometheus::Prometheus,
    wait,
};

use super::{
    leak::{self, Leak, Sockets},
    scene::{Scene, socket_of},
    verdict::is_plain,
};

/// Of 16 bytes, of which the kernel takes 15: the last one begins a character and is cut off from
/// its rest, so that the name is no UTF-8.
const PROCESS: &str = "a\"b'\n\x1b[31m\\{}\té";

/// A cgroup's; `cgroup_mkdir()` refuses a newline alone.
const CGROUP: &[u8] =
    b"q\"'\\\x1b[2J\t\x7f\xff\xfe{x=\"1\"} \xe2\x80\xae\xc2\x9b\r<script>.service";

const LEAKED: usize = 3;

/// A cgroup within another; dropping it removes it, once its processes have ended.
struct Within(PathBuf);

impl Drop for Within {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            // Nor shall its name steer the terminal of whoever reads this.
            let path = self.0.to_string_lossy();
            eprintln!("{} is left over: {error}", path.escape_debug());
        }
    }
}

/// `agent events`, which writes into a file.
pub(super) struct Events {
    child: Child,
    file: PathBuf,
}

impl Events {
    /// Listens to those of a port, with these options besides.
    pub(super) fn listen(socket: &str, port: u16, file: PathBuf, options: &[&str]) -> Result<Self> {
        let mut child = Command::new(binary()?)
            .args(["events", "--all", "--api-socket", socket])
            .args(["--port", &port.to_string()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(File::create(&file)?)
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let errors = child.stderr.as_mut().context("no standard error")?;
        BufReader::new(errors).read_line(&mut line)?;
        ensure!(line.contains("listening"), "{line}");
        Ok(Self { child, file })
    }

    /// What it printed, once that is so many lines.
    pub(super) fn printed(mut self, lines: usize) -> Result<String> {
        let mut text = String::new();
        wait::until("what is told", || {
            text = String::from_utf8(fs::read(&self.file)?).context("no UTF-8")?;
            Ok(text.lines().count() >= lines)
        })
        .with_context(|| text.clone())?;
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGINT)?;
        ensure!(self.child.wait()?.success());
        Ok(text)
    }
}

/// A process leaks under such a name, in such a cgroup, and everything that shows it is read.
pub(super) fn are_shown(scene: &mut Scene) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let netns = Netns::new()?;
    let cgroup = Cgroup::new("names")?.context("no cgroup")?;
    let sockets = Sockets::leaked(LEAKED);
    let parent = cgroup.processes();
    let parent = parent.parent().context("a cgroup without a directory")?;
    let within = Within(parent.join(OsStr::from_bytes(CGROUP)));
    fs::create_dir(&within.0)?;
    let holder = leak::start(&netns, &cgroup, PROCESS, sockets)?;
    fs::write(within.0.join("cgroup.procs"), holder.pid().to_string())?;
    let mut leak = Leak::of(holder, &netns, sockets)?;
    let comm = fs::read(format!("/proc/{}/comm", leak.holder.pid()))?;
    ensure!(
        String::from_utf8(comm.clone()).is_err(),
        "{comm:?} is UTF-8"
    );

    let [process, workload] = in_metrics(scene, leak.port, folder.path())?;
    eprintln!("process {process:?}, workload {workload:?}");
    for (name, beginning) in [(&process, "a\"b'"), (&workload, "unit:q\"'\\")] {
        ensure!(name.starts_with(beginning), "{name:?}");
    }
    in_snapshots(scene, leak.port, [&process, &workload])?;

    // Both at once, for there is one end to tell of.
    let socket = socket_of(scene.api_socket()?);
    let listen = |name: &str, options: &[&str]| {
        Events::listen(&socket, leak.port, folder.path().join(name), options)
    };
    let (json, table) = (listen("json", &[])?, listen("table", &["--table"])?);
    leak.holder.go_on()?;
    leak.holder.says("closed")?;
    // LAST_ACK of each, at least, and a line above a table.
    let lines = json.printed(LEAKED)?;
    let mut of_process = 0;
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        of_process += usize::from(event["process"] == *process);
    }
    ensure!(of_process >= LEAKED, "{lines}");
    is_plain(&table.printed(LEAKED + 1)?)?;
    drop((leak, within));
    Ok(())
}

/// The names of process and workload, as Prometheus itself reads them from a scrape.
fn in_metrics(scene: &Scene, port: u16, folder: &Path) -> Result<[String; 2]> {
    let series = format!("connstate_close_wait_leaked{{port=\"{port}\"}}");
    let is_told = |text: &str| {
        text.lines().any(|line| {
            line.starts_with("connstate_close_wait_leaked{")
                && line.contains(&format!("port=\"{port}\""))
                && line.ends_with(&format!(" {LEAKED}"))
        })
    };
    wait::until("the leak in /metrics", || {
        let page = scene.get("/metrics")?.body;
        is_plain(&page)?;
        Ok(is_told(&page))
    })?;
    let configuration = format!(
        "scrape_configs:\n- job_name: agent\n  scrape_interval: 500ms\n  \
         scrape_timeout: 500ms\n  static_configs:\n  - targets: ['{}']\n",
        scene.daemon.address()
    );
    let mut prometheus = Prometheus::start(folder, &configuration)?;
    prometheus.wait("up", |up| up > 0.0)?;
    let answer = prometheus.ask(&[format!("{series} > 0")])?;
    let labels = &answer[0].first().context("no such series")?.labels;
    let label = |name: &str| labels.get(name).cloned().context("no such label");
    Ok([label("process")?, label("workload")?])
}

/// Snapshots, for programs and for people, name them the same way.
fn in_snapshots(scene: &Scene, port: u16, names: [&str; 2]) -> Result<()> {
    let findings = scene.api(&format!("/api/v1/findings?kind=close_wait&port={port}"))?;
    let finding = &findings["findings"][0];
    for (key, name) in ["process", "workload"].into_iter().zip(names) {
        ensure!(finding[key] == name, "{key}: {finding:#}");
    }
    scene.api("/api/v1/snapshot")?;
    for format in [&["--json"][..], &[]] {
        let mut command = Command::new(binary()?);
        let leaked = ["snapshot", "--close-wait-leak-after", "1s"];
        let shown = output(command.args(leaked).args(format))?;
        ensure!(shown.status.success(), "{shown:?}");
        let text = String::from_utf8(shown.stdout)?;
        is_plain(&text)?;
        ensure!(text.contains("a\\\"b'") || text.contains("a\"b'"), "{text}");
        if !format.is_empty() {
            serde_json::from_str::<Value>(&text)?;
        }
    }
    Ok(())
}
