//! The kernel's types, given as files in place of the kernel's own.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use agent_ebpf::{
    fields::{FIELDS, Field, Need},
    programs::PROGRAMS,
};
use anyhow::{Context as _, Result, anyhow, ensure};
use tests::{
    daemon::{RUN, binary, output},
    random::Random,
    types::{KERNELS, name},
};

use super::{
    scene::{self, PLAINLY, Scene, Start},
    verdict,
};

/// The longest that a look at a file may take, on a busy machine: it is a third of a second.
const LONGEST: Duration = Duration::from_secs(30);

/// A kernel without a field that is optional, and without a tracepoint: in the names that it tells,
/// each ended by a zero, one letter is another.
pub(super) const LACKING: Start = Start {
    before: Some(
        "mount -t tmpfs none /mnt && LC_ALL=C sed --null-data \
         's/^sk_err_soft$/Sk_err_soft/; s/^btf\\(_trace_tcp_retransmit_synack\\)$/Btf\\1/' \
         /sys/kernel/btf/vmlinux >/mnt/btf && \
         mount --bind /mnt/btf /sys/kernel/btf/vmlinux",
    ),
    ..PLAINLY
};

/// What the agent's log says of it.
pub(super) const NOT_ATTACHED: &str = "not attached: ";
pub(super) const FIELD: &str = "sock.sk_err_soft";

/// The program that is for the tracepoint.
const LACKING_PROGRAM: &str = "tcp_retransmit_synack";

/// Bits that are flipped, one at a time, and those of the header.
const FLIPPED: u64 = 180;
const HEADER_BITS: u64 = 24 * 8;

/// The fewest that say something.
const LEAST_FLIPPED: usize = 30;

/// After so long, no more bits are flipped.
const ENOUGH: Duration = Duration::from_secs(45);

/// Runs the agent where this file is the kernel's BTF.
fn with(file: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /sys/kernel/btf/vmlinux && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(file);
    command.arg(binary()?).args(arguments);
    let started = Instant::now();
    let ended = output(command.env("RUST_BACKTRACE", "0"))?;
    ensure!(
        started.elapsed() < LONGEST,
        "it took {:?}",
        started.elapsed()
    );
    Ok(ended)
}

/// A report of `agent check` and its exit code: one of those it has, and no panic.
fn check(file: &Path) -> Result<(i32, String)> {
    let ended = with(file, &["check"])?;
    let report = String::from_utf8_lossy(&ended.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ended.stderr);
    let code = ended.status.code().context("a signal ended it")?;
    ensure!((0..=2).contains(&code), "{code}: {report}{errors}");
    ensure!(!errors.contains("panic"), "{errors}");
    Ok((code, report))
}

/// The agent that runs where they are missing: it tells which program is not attached, and counts
/// with all others.
pub(super) fn the_others_run(scene: &mut Scene) -> Result<()> {
    let checked = scene::command(&LACKING)?.arg("check").output()?;
    let report = String::from_utf8(checked.stdout)?;
    for lost in ["sk_err_soft", LACKING_PROGRAM] {
        let mut lines = report
            .lines()
            .skip_while(|line| !line.contains(lost))
            .take(2);
        ensure!(
            lines.any(|line| line.contains("lost: ")),
            "{lost}: {report}"
        );
    }
    let scrape = scene.scrape()?;
    for program in PROGRAMS {
        let name = program.name;
        let told = scrape.value(&format!(
            "connstate_bpf_program_attached{{program=\"{name}\"}}"
        ))?;
        let attached = format!("  {name:<23} attached");
        let is_attached = report.lines().any(|line| line == attached);
        ensure!((told > 0.0) == is_attached, "{name}: {told}: {report}");
        ensure!(!is_attached || name != LACKING_PROGRAM, "{report}");
    }
    Ok(())
}

/// Not there, nothing in it, or less than there should be.
pub(super) fn missing_and_truncated() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("btf");
    let whole = fs::read(KERNELS)?;
    let mut hidden = Command::new("unshare");
    let script = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
    hidden
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(binary()?);
    let ended = output(hidden.args(RUN).env("RUST_BACKTRACE", "0"))?;
    verdict::is_refused(
        &ended,
        &["offers no BTF", KERNELS, "CONFIG_DEBUG_INFO_BTF=y"],
    )?;
    let parts = [
        0,
        1,
        23,
        24,
        4096,
        whole.len() / 3,
        whole.len() / 2,
        whole.len() - 1,
    ];
    for length in parts {
        fs::write(&file, &whole[..length])?;
        verdict::is_refused(&with(&file, &RUN)?, &[KERNELS, "is broken"])?;
        let (code, report) = check(&file)?;
        ensure!(
            code == 2 && report.contains("is broken"),
            "{code}: {report}"
        );
    }
    Ok(())
}

/// One bit is another, at random.
pub(super) fn flipped_bits() -> Result<()> {
    let mut random = Random::new()?;
    let whole = fs::read(KERNELS)?;
    let bits = whole.len() as u64 * 8;
    // Every third in the header, in both halves: those are the quick ones.
    let places = (0..FLIPPED).map(|number| match number % 3 {
        0 => random.below(HEADER_BITS),
        _ => random.below(bits),
    });
    let places: Vec<u64> = places.collect();
    let started = Instant::now();
    let (one, other) = places.split_at(places.len() / 2);
    let codes = thread::scope(|scope| {
        let halves = [one, other].map(|half| scope.spawn(|| flip(whole.clone(), half)));
        let codes = halves.map(|half| half.join().unwrap_or_else(|_| Err(anyhow!("a panic"))));
        let mut sum = BTreeMap::new();
        for codes in codes {
            for (code, count) in codes? {
                *sum.entry(code).or_insert(0) += count;
            }
        }
        Ok::<_, anyhow::Error>(sum)
    })?;
    eprintln!(
        "exit codes of agent check: {codes:?}, in {:?}",
        started.elapsed()
    );
    let flipped: usize = codes.values().sum();
    ensure!(flipped >= LEAST_FLIPPED, "{flipped} bits were flipped");
    Ok(())
}

fn flip(mut bytes: Vec<u8>, places: &[u64]) -> Result<BTreeMap<i32, usize>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("btf");
    let mut codes = BTreeMap::new();
    let started = Instant::now();
    for (done, place) in places.iter().enumerate() {
        if started.elapsed() > ENOUGH && done >= LEAST_FLIPPED / 2 {
            eprintln!("a busy machine: {done} of {} were flipped", places.len());
            break;
        }
        let (byte, bit) = (usize::try_from(place / 8)?, 1 << (place % 8));
        bytes[byte] ^= bit;
        fs::write(&file, &bytes)?;
        let (code, report) = check(&file).with_context(|| format!("bit {place}"))?;
        // Whatever is missing, it says so in the end.
        ensure!(report.lines().count() > 2, "bit {place}: {report}");
        *codes.entry(code).or_insert(0) += 1;
        bytes[byte] ^= bit;
    }
    Ok(codes)
}

/// Every field that the programs read, one after the other, is called something else: one that is
/// needed is named in a refusal, and without one that is not, what is lost is said.
pub(super) fn each_field_renamed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("btf");
    let whole = fs::read(KERNELS)?;
    let mut seen = [0; 3];
    for field in FIELDS {
        let mut bytes = whole.clone();
        for path in field.paths() {
            let leaf = path.rsplit('.').next().unwrap_or_default();
            // A kernel has one of several, perhaps.
            if let Some(at) = name(&bytes, leaf) {
                bytes[at] ^= 0x20;
            }
        }
        fs::write(&file, &bytes)?;
        let code = is_missed(&file, field)?;
        seen[usize::try_from(code)?] += 1;
    }
    eprintln!("of {} fields: full, reduced, none: {seen:?}", FIELDS.len());
    Ok(())
}

fn is_missed(file: &Path, field: &Field) -> Result<i32> {
    let (code, report) = check(file)?;
    let called = format!("{}.{}", field.container, field.path);
    let lines = report.lines();
    let line = lines
        .rev()
        .find(|line| line.contains(&format!("{called} ")));
    let line = line.with_context(|| format!("{called}: {report}"))?;
    let (word, least) = match field.need {
        Need::Needed => ("needed: ", 2),
        Need::Optional => ("lost: ", 1),
    };
    let says = line.contains(&format!("{word}{}", field.purpose));
    ensure!(says && code >= least, "{called}: {code}: {line}");
    // Others may share its name, and be needed.
    if code == 2 {
        let refused = with(file, &RUN)?;
        verdict::is_refused(&refused, &["this kernel has no field", "needed for"])?;
    }
    Ok(code)
}
