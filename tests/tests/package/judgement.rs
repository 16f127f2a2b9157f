//! What systemd itself says of the unit, and what docs/install.md says that it does.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tests::debian::Root;

use super::{UNIT, within};

/// The exposure that systemd finds must be below this, of 10.
const EXPOSURE: f64 = 3.0;

/// Where a drop-in is put, as `systemctl edit` does.
const DROP_IN: &str = "/etc/systemd/system/connstate-agent.service.d/override.conf";

/// Where the page lies in the package.
const PAGE: &str = "/usr/share/doc/connstate-agent/docs/install.md";

/// Its unit has no mistake, and copies with one are seen to.
pub(super) fn unit_is_sound(root: &Root) -> Result<()> {
    mistakes(root, UNIT).with_context(|| format!("systemd-analyze verify {UNIT}"))?;
    let unit = fs::read_to_string(within(root, "/usr/lib/systemd/system").join(UNIT))?;
    fs::create_dir(within(root, "/broken"))?;
    let copy = format!("/broken/{UNIT}");
    for (good, bad) in [
        ("\nNoNewPrivileges=yes\n", "\nNoNewPrivilegs=yes\n"),
        (
            "\nRestrictNamespaces=net\n",
            "\nRestrictNamespaces=nonsense\n",
        ),
    ] {
        ensure!(unit.contains(good), "the unit has no {good:?}");
        fs::write(within(root, &copy), unit.replace(good, bad))?;
        ensure!(mistakes(root, &copy).is_err(), "{bad:?} passes");
    }
    Ok(fs::remove_dir_all(within(root, "/broken"))?)
}

/// Fails where systemd says anything at all of a unit. It takes mistakes for warnings, and ends with
/// 0, unless it is told that nothing but the unit itself counts.
fn mistakes(root: &Root, unit: &str) -> Result<()> {
    let verify = format!("systemd-analyze verify --man=no --recursive-errors=no {unit} 2>&1");
    let said = root.command(&["sh", "-c", &verify])?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// The exposure is low, with all capabilities and with the two that the page's drop-in leaves, and as
/// the page says.
pub(super) fn exposure_is_as_documented(root: &Root) -> Result<()> {
    let page = fs::read_to_string(within(root, PAGE))?;
    let version = root.command(&["systemctl", "--version"])?;
    let version = version.split(' ').nth(1).unwrap_or_default();
    let is_documented = page.contains(&format!("judgement of systemd {version},"));
    if !is_documented {
        eprintln!("skipped: docs/install.md has the judgement of another systemd than {version}");
    }
    let drop_in = within(root, DROP_IN);
    for (drop, before) in [
        (None, format!("exposure level for {UNIT}: ")),
        (
            Some(drop_in_of(&page)?),
            "With two capabilities it is ".to_owned(),
        ),
    ] {
        if let Some(text) = drop {
            fs::create_dir_all(drop_in.parent().context("no directory")?)?;
            fs::write(&drop_in, text)?;
        }
        let security = [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            UNIT,
        ];
        let judged = root.command(&security)?;
        let level = number_after(&judged, &format!("exposure level for {UNIT}: "))?;
        println!("systemd-analyze security: {level}");
        ensure!(level.parse::<f64>()? < EXPOSURE, "{judged}");
        let documented = number_after(&page, &before)?;
        ensure!(
            !is_documented || level == documented,
            "docs/install.md: {before}{documented}, and systemd says {level}"
        );
    }
    fs::remove_dir_all(drop_in.parent().context("no directory")?)?;
    Ok(())
}

/// The drop-in that leaves two capabilities: the indented lines that begin with `[Service]`.
fn drop_in_of(page: &str) -> Result<String> {
    let lines = page.lines().skip_while(|line| *line != "    [Service]");
    let lines = lines.map_while(|line| line.strip_prefix("    "));
    let text = lines.collect::<Vec<_>>().join("\n");
    ensure!(
        text.ends_with("CapabilityBoundingSet=CAP_BPF CAP_PERFMON"),
        "{text:?}"
    );
    Ok(text)
}

/// The first word of what comes behind this, without a full stop.
fn number_after<'a>(text: &'a str, before: &str) -> Result<&'a str> {
    let (_, behind) = text
        .split_once(before)
        .with_context(|| format!("no {before:?} in {text}"))?;
    let word = behind.split_whitespace().next().unwrap_or_default();
    Ok(word.trim_end_matches('.'))
}
