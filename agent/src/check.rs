//! `agent check`: what this host offers, and what is lost without.

use std::{fmt::Write as _, process::ExitCode};

use agent_ebpf::fields::Need;

use crate::{
    kernel::{
        CapabilityReport, FEATURES, Feature, FieldReport, Host, Kernel, KernelTypes, Options,
        PIDS_UNSEEN, ProgramReport, Verdict,
    },
    logging::chain,
};

/// How much of connstate runs here; the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Everything: exit 0.
    Full = 0,
    /// Something optional is missing: exit 1.
    Reduced = 1,
    /// Nothing would run: exit 2.
    None = 2,
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// The kernel's release.
    pub release: String,
    /// Where its BTF is, if it is there.
    pub btf: Result<String, String>,
    /// Every capability that is of use; none where the kernel does not tell.
    pub capabilities: Vec<CapabilityReport>,
    /// Whether the processes of the whole host are to be seen.
    pub sees_all_processes: bool,
    /// What this kernel is too old for.
    pub missing_features: Vec<&'static Feature>,
    /// Why nothing could be loaded, if so.
    pub failure: Option<String>,
    /// Every field.
    pub fields: Vec<FieldReport>,
    /// Every program.
    pub programs: Vec<ProgramReport>,
}

/// Prints the report on standard output.
#[must_use]
#[expect(clippy::print_stdout, reason = "the report is what the command is for")]
pub fn check() -> ExitCode {
    let report = Report::make(&Options::default());
    print!("{}", report.text());
    ExitCode::from(report.extent() as u8)
}

impl Report {
    /// Loads everything once, and lets it go.
    #[must_use]
    pub fn make(options: &Options) -> Self {
        let mut report = Self {
            release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            btf: Err(format!("none at {}", options.btf_path.display())),
            capabilities: Vec::new(),
            sees_all_processes: true,
            missing_features: Vec::new(),
            failure: None,
            fields: Vec::new(),
            programs: Vec::new(),
        };
        match Host::look(&options.btf_path) {
            Ok(host) => {
                if host.has_btf {
                    report.btf = Ok(host.btf_path.display().to_string());
                }
                let all = FEATURES.iter();
                report.missing_features = all.filter(|feature| !host.has(feature)).collect();
                report.capabilities = host.capabilities;
                report.sees_all_processes = host.sees_all_processes;
            }
            Err(error) => report.failure = Some(chain(&error)),
        }
        match Kernel::try_load(options) {
            Ok(kernel) => {
                report.programs = kernel.programs();
                report.fields = kernel.fields().to_vec();
            }
            Err(error) => {
                report.failure = Some(chain(&error));
                // What this kernel's BTF holds may say why.
                if let Ok(types) = KernelTypes::read(&options.btf_path) {
                    report.fields = types.report();
                }
            }
        }
        report
    }

    /// How much runs here.
    #[must_use]
    pub fn extent(&self) -> Extent {
        let lacks = |need| {
            let program = |report: &ProgramReport| {
                report.program.need == need && !report.verdict.is_attached()
            };
            let field =
                |report: &FieldReport| report.field.need == need && !report.location.is_present();
            let capability =
                |report: &CapabilityReport| report.capability.need == need && !report.is_held;
            self.programs.iter().any(program)
                || self.fields.iter().any(field)
                || self.capabilities.iter().any(capability)
        };
        if self.failure.is_some() || lacks(Need::Needed) {
            Extent::None
        } else if lacks(Need::Optional)
            || !self.missing_features.is_empty()
            || !self.sees_all_processes
        {
            Extent::Reduced
        } else {
            Extent::Full
        }
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _written = text.write_fmt(line);
            text.push('\n');
        };
        line(format_args!("kernel        {}", self.release));
        match &self.btf {
            Ok(path) => line(format_args!("BTF           {path}")),
            Err(missing) => line(format_args!("BTF           {missing}")),
        }
        if !self.sees_all_processes {
            line(format_args!("PID namespace not the host's"));
            line(format_args!("              lost: {PIDS_UNSEEN}"));
        }
        if !self.capabilities.is_empty() {
            line(format_args!("\ncapabilities"));
        }
        for report in &self.capabilities {
            let (name, purpose) = (report.capability.name, report.capability.purpose);
            let held = if report.is_held { "held" } else { "missing" };
            line(format_args!("  {name:<23} {held}"));
            if !report.is_held {
                line(format_args!("  {:<23} lost: {purpose}", ""));
            }
        }
        if !self.programs.is_empty() {
            line(format_args!("\nprograms"));
        }
        for report in &self.programs {
            line(format_args!(
                "  {:<23} {}",
                report.program.name, report.verdict
            ));
            if !report.verdict.is_attached() {
                line(format_args!(
                    "  {:<23} lost: {}",
                    "", report.program.purpose
                ));
            }
            if let Verdict::Broken { verifier_log, .. } = &report.verdict {
                for logged in verifier_log.lines() {
                    line(format_args!("    {logged}"));
                }
            }
        }
        if !self.missing_features.is_empty() {
            line(format_args!("\nkernel features"));
        }
        for feature in &self.missing_features {
            let (major, minor) = feature.since;
            let name = feature.name;
            line(format_args!("  {name:<25} missing: since {major}.{minor}"));
            line(format_args!("  {:<25} lost: {}", "", feature.purpose));
        }
        if !self.fields.is_empty() {
            line(format_args!("\nkernel fields"));
        }
        for FieldReport { field, location } in &self.fields {
            let name = format!("{}.{}", field.container, field.path);
            match (location.is_present(), location.bit_range(), field.need) {
                (true, None, _) => line(format_args!("  {name:<45} {:>5}", location.offset())),
                (true, Some((first, width)), _) => line(format_args!(
                    "  {name:<45} {:>5}, bits {first} to {}",
                    location.offset(),
                    first + width - 1
                )),
                (false, _, need) => {
                    let weight = if need == Need::Needed {
                        "needed"
                    } else {
                        "lost"
                    };
                    line(format_args!(
                        "  {name:<45}     – {weight}: {}",
                        field.purpose
                    ));
                }
            }
        }
        let verdict = match self.extent() {
            Extent::Full => "full: everything runs here",
            Extent::Reduced => "reduced: the agent runs, without what is lost above",
            Extent::None => "none: the agent cannot run here",
        };
        line(format_args!("\n{verdict}"));
        if let Some(failure) = &self.failure {
            line(format_args!("{failure}"));
        }
        text
    }
}
