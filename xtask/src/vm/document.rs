//! `docs/kernels.md`, from what `agent check` said on each kernel. Pure.

use super::table::table;

/// What a kernel's report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    release: String,
    /// Each program with its verdict, and where it does not run what is lost.
    programs: Vec<Line>,
    /// What the kernel is too old for, and what is lost.
    missing_features: Vec<Line>,
    /// Each field that the kernel has not, and what is lost.
    missing_fields: Vec<Line>,
    /// How many fields there are.
    fields: usize,
    /// The last word: full, reduced or none.
    extent: String,
}

/// A line of the report, by what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    name: String,
    verdict: String,
    lost: String,
}

impl Report {
    /// Reads what `agent check` printed.
    pub(super) fn read(text: &str) -> Self {
        let mut report = Self::default();
        let mut section = "";
        for line in text.lines() {
            let Some(indented) = line.strip_prefix("  ") else {
                match line.split_once(char::is_whitespace) {
                    Some(("kernel", rest)) if report.release.is_empty() => {
                        rest.trim().clone_into(&mut report.release);
                    }
                    Some((extent, _)) if extent.ends_with(':') => {
                        extent.trim_end_matches(':').clone_into(&mut report.extent);
                    }
                    _ => section = line,
                }
                if ["kernel fields", "kernel features"].contains(&line) {
                    section = line;
                }
                continue;
            };
            let (name, rest) = indented.split_once(' ').unwrap_or((indented, ""));
            let rest = rest.trim();
            let lines = match section {
                "programs" => &mut report.programs,
                "kernel features" => &mut report.missing_features,
                "kernel fields" => {
                    report.fields += 1;
                    if let Some(missing) = rest.strip_prefix("– ") {
                        let (verdict, lost) = missing.split_once(": ").unwrap_or((missing, ""));
                        report.missing_fields.push(Line {
                            name: name.to_owned(),
                            verdict: verdict.to_owned(),
                            lost: lost.to_owned(),
                        });
                    }
                    continue;
                }
                _ => continue,
            };
            match (rest.strip_prefix("lost: "), lines.last_mut()) {
                (Some(lost), Some(line)) if name.is_empty() => lost.clone_into(&mut line.lost),
                _ => lines.push(Line {
                    name: name.to_owned(),
                    verdict: rest.to_owned(),
                    lost: String::new(),
                }),
            }
        }
        report
    }

    fn program(&self, name: &str) -> Option<&Line> {
        self.programs.iter().find(|program| program.name == name)
    }
}

/// The page.
pub(super) fn page(reports: &[Report]) -> String {
    let mut page = String::from(
        "# Kernels\n\n\
         Written by `cargo xtask vm --write-docs`, which boots each of these kernels of Debian's\n\
         under emulation and asks `agent check` there; without that option the command runs the tests\n\
         against the kernel on them. `agent check` says the same of the kernel you have.\n\n",
    );
    let column = |first: &str| {
        let releases = reports.iter().map(|report| report.release.clone());
        [first.to_owned()]
            .into_iter()
            .chain(releases)
            .collect::<Vec<_>>()
    };
    let mut rows = Vec::new();
    let mut row = |first: &str, cell: &dyn Fn(&Report) -> String| {
        rows.push(
            [first.to_owned()]
                .into_iter()
                .chain(reports.iter().map(cell))
                .collect(),
        );
    };
    row("**the agent**", &|report| format!("**{}**", report.extent));
    let first = reports.first();
    for program in first.into_iter().flat_map(|report| &report.programs) {
        let name = &program.name;
        row(&format!("`{name}`"), &|report| {
            let verdict = report.program(name).map(|program| program.verdict.as_str());
            let verdict = verdict.unwrap_or("–");
            verdict.split(':').next().unwrap_or(verdict).to_owned()
        });
    }
    row("kernel fields", &|report| {
        format!(
            "{} of {}",
            report.fields - report.missing_fields.len(),
            report.fields
        )
    });
    page += &table(&column("program"), &rows);
    for report in reports {
        let unsupported = report
            .programs
            .iter()
            .filter(|program| !program.lost.is_empty());
        let missing = unsupported
            .chain(&report.missing_features)
            .chain(&report.missing_fields);
        let lines: Vec<_> = missing
            .map(|line| {
                format!(
                    "- `{}`: {}. Lost: {}.\n",
                    line.name, line.verdict, line.lost
                )
            })
            .collect();
        if !lines.is_empty() {
            let lines = lines.concat();
            let head = format!("\n## What {} lacks\n\n", report.release);
            page.push_str(&head);
            page.push_str(&lines);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const REDUCED: &str = "\
kernel        5.10.0-46-cloud-amd64
BTF           /sys/kernel/btf/vmlinux

capabilities
  CAP_BPF                 held

programs
  inet_sock_set_state     attached
  census_tcp              unsupported: the kernel has no helper bpf_x
                          lost: which sockets there are

kernel features
  bpf_get_socket_cookie     missing: since 5.12
                            lost: telling sockets apart

kernel fields
  sock.sk_protocol                                520, bits 8 to 15
  tcp_sock.rcv_tstamp                              – lost: the ages of old sockets

reduced: the agent runs, without what is lost above
";

    #[test]
    fn a_report_is_read() {
        let report = Report::read(REDUCED);
        assert_eq!(report.release, "5.10.0-46-cloud-amd64");
        assert_eq!(report.extent, "reduced");
        assert_eq!((report.fields, report.missing_fields.len()), (2, 1));
        let verdicts: Vec<_> = report
            .programs
            .iter()
            .map(|line| line.verdict.as_str())
            .collect();
        assert_eq!(
            verdicts,
            ["attached", "unsupported: the kernel has no helper bpf_x"]
        );
        assert_eq!(report.programs[1].lost, "which sockets there are");
    }

    #[test]
    fn the_page_tells_what_is_lost() {
        let page = page(&[Report::read(REDUCED)]);
        for part in [
            "| `census_tcp`          | unsupported",
            "| **the agent**         | **reduced**",
            "1 of 2",
            "- `census_tcp`: unsupported: the kernel has no helper bpf_x. Lost: which sockets",
            "- `bpf_get_socket_cookie`: missing: since 5.12. Lost: telling sockets apart.",
            "- `tcp_sock.rcv_tstamp`: lost. Lost: the ages",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
    }
}
