//! The pages and examples that the package brings: each link leads somewhere, and Prometheus takes its
//! configurations.

use std::{fs, io::ErrorKind, path::Path, process::Command};

use anyhow::{Result, ensure};
use tests::{debian::Root, files};

use super::within;

/// Where they lie, to one another as in the repository.
const PAGES: &str = "/usr/share/doc/connstate-agent";

/// Debian builds Prometheus and promtool without the discovery that it asks for.
const NOT_DEBIANS: &str = "scrape-kubernetes.yml";

pub(super) fn pages_are_whole(root: &Root) -> Result<()> {
    let pages = within(root, PAGES);
    let (links, broken) = links(&pages)?;
    ensure!(links > 40, "{links} links");
    ensure!(broken.is_empty(), "{broken:#?}");
    let prometheus = pages.join("deploy/prometheus");
    let Some(refused) = refused(&prometheus)? else {
        eprintln!("skipped: there is no promtool");
        return Ok(());
    };
    ensure!(refused.is_empty(), "{refused:#?}");

    // As it was once shipped.
    let (targets, away) = (prometheus.join("targets"), prometheus.join("away"));
    fs::rename(&targets, &away)?;
    let without: Vec<_> = self::refused(&prometheus)?.into_iter().flatten().collect();
    ensure!(without.len() == 2, "without targets: {without:#?}");
    ensure!(self::links(&pages)?.1.len() == 1);
    Ok(fs::rename(away, targets)?)
}

/// How many relative links the pages below a directory have, and those that lead nowhere.
fn links(directory: &Path) -> Result<(usize, Vec<String>)> {
    let (mut count, mut broken) = (0, Vec::new());
    for page in files::below(directory)? {
        if page.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = fs::read_to_string(&page)?;
        let places = text.split("](").skip(1);
        for place in places.filter_map(|rest| Some(rest.split_once(')')?.0)) {
            let (path, _) = place.split_once('#').unwrap_or((place, ""));
            if path.is_empty() || path.contains("://") {
                continue;
            }
            count += 1;
            if !page.with_file_name(path).exists() {
                broken.push(format!("{}: {place}", page.display()));
            }
        }
    }
    Ok((count, broken))
}

/// What promtool does not take, or warns of; nothing where there is no promtool.
fn refused(directory: &Path) -> Result<Option<Vec<String>>> {
    let mut refused = Vec::new();
    let entries = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    for name in entries.iter().map(fs::DirEntry::file_name) {
        let name = name.to_string_lossy();
        if !name.ends_with(".yml") || name == NOT_DEBIANS {
            continue;
        }
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "config", &name]);
        let output = match promtool.current_dir(directory).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            output => output?,
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !output.status.success() || said.contains("WARNING") {
            refused.push(format!("{name}: {said}"));
        }
    }
    Ok(Some(refused))
}
