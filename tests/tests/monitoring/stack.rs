//! The agent, Prometheus and Alertmanager as they are shipped, in a network namespace of their own,
//! where they find each other at their usual addresses.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::{
    alertmanager::Alertmanager,
    daemon::{Daemon, binary},
    prometheus::Prometheus,
    webhook::Webhook,
};

/// Where the shipped configuration looks for the agent and for Alertmanager.
pub(crate) const AGENT: &str = "127.0.0.1:10735";
const ALERTMANAGER: &str = "127.0.0.1:9093";

/// Whom Prometheus scrapes: agents, as the shipped configuration calls them, and something else.
pub(crate) const JOB: &str = "connstate";
pub(crate) const OTHER_JOB: &str = "alertmanager";

/// All of them.
pub(crate) struct Stack {
    pub(crate) agent: Daemon,
    /// When the agent was.
    pub(crate) started: Instant,
    pub(crate) prometheus: Prometheus,
    pub(crate) alertmanager: Alertmanager,
    pub(crate) webhook: Webhook,
    _folder: TempDir,
}

impl Stack {
    /// Starts them in this thread's network namespace. The shipped configuration is used as it is
    /// but for its durations, which are in minutes, and for all rules being loaded, those for
    /// Kubernetes too; `targets` are scraped beside the agent, and Alertmanager as another job, whose
    /// series are nothing that a board should show.
    pub(crate) fn start(targets: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(binary()?);
        command.args(["run", "--bpf-stats", "--census-interval", "1s"]);
        command.args(["--close-wait-leak-after", "2s"]);
        command.args([
            "--fin-wait1-stall-after",
            "2s",
            "--fin-wait2-stall-after",
            "2s",
        ]);
        command
            .arg("--api-socket")
            .arg(folder.path().join("api.sock"));
        let started = Instant::now();
        let agent = Daemon::spawn(&mut command)?;
        ensure!(
            agent.address() == AGENT.parse::<SocketAddr>()?,
            "the agent listens elsewhere by default"
        );
        let webhook = Webhook::start()?;
        let configuration = quick(&shipped("alertmanager/alertmanager.yml")?)
            .replace("example.com", "example")
            .replace(
                "https://pager.example/",
                &format!("http://{}/pager/", webhook.address()),
            )
            .replace(
                "https://tickets.example/",
                &format!("http://{}/tickets/", webhook.address()),
            )
            .replace(
                "https://chat.example/",
                &format!("http://{}/chat/", webhook.address()),
            );
        let alertmanager =
            Alertmanager::start(folder.path(), &configuration, ALERTMANAGER.parse()?)?;
        let mut configuration = shipped("prometheus/prometheus.yml")?;
        fs::create_dir(folder.path().join("rules"))?;
        for name in rules()? {
            let file = format!("rules/{name}");
            fs::write(
                folder.path().join(&file),
                quick(&shipped(&format!("prometheus/{file}"))?),
            )?;
            // What not everybody needs stands in a comment.
            configuration = configuration.replace(&format!("# - {file}"), &format!("- {file}"));
            ensure!(
                configuration.contains(&format!("\n  - {file}\n")),
                "{configuration}"
            );
        }
        let agent_alone = format!("\"{AGENT}\"");
        let mut all = vec![agent_alone.clone()];
        all.extend(targets.iter().map(|target| format!("\"{target}\"")));
        ensure!(configuration.contains(&agent_alone) && configuration.contains(ALERTMANAGER));
        let configuration = quick(&configuration).replace(&agent_alone, &all.join(","))
            + &format!(
                "  - job_name: {OTHER_JOB}\n    static_configs:\n      - targets: [\"{ALERTMANAGER}\"]\n"
            );
        let mut prometheus = Prometheus::start(folder.path(), &configuration)?;
        for job in [JOB, OTHER_JOB] {
            prometheus.wait(&format!("max%28up%7Bjob=%22{job}%22%7D%29"), |up| up > 0.5)?;
        }
        Ok(Self {
            agent,
            started,
            prometheus,
            alertmanager,
            webhook,
            _folder: folder,
        })
    }
}

/// The names of all files of rules, without those that test them.
pub(crate) fn rules() -> Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules");
    let mut names = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        let of_rules = name.strip_suffix(".yml");
        if of_rules.is_some_and(|stem| !stem.ends_with("_test")) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A file of deploy/.
pub(crate) fn shipped(path: &str) -> Result<String> {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The same with every duration that something is waited for, or done at, a second.
fn quick(text: &str) -> String {
    const WAITED_FOR: [&str; 5] = [
        "for:",
        "scrape_interval:",
        "evaluation_interval:",
        "group_wait:",
        "group_interval:",
    ];
    let lines = text.lines().map(|line| {
        let words = line.trim_start();
        let key = WAITED_FOR.iter().find(|key| words.starts_with(*key));
        key.map_or_else(
            || line.to_owned(),
            |key| {
                let indent = " ".repeat(line.len() - words.len());
                format!("{indent}{key} 1s")
            },
        )
    });
    let mut text = lines.collect::<Vec<_>>().join("\n");
    // Where it is not said, Alertmanager waits for half a minute.
    text = text.replace(
        "\n  receiver: chat\n",
        "\n  receiver: chat\n  group_wait: 1s\n",
    );
    text.push('\n');
    text
}
