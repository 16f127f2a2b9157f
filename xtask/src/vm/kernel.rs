//! A kernel: one of Debian's cloud flavour, fetched once and unpacked for each run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::mirror::{Mirror, Package};
use super::series::Series;
use crate::cargo;

/// What the names of packages begin with. From 6.19 on linux-image-* is an empty shell, and there
/// is a package each for the kernel and its modules.
const IMAGE: &str = "linux-image-";
const BINARY: &str = "linux-binary-";
const MODULES: &str = "linux-modules-";
/// What they end with.
const FLAVOUR: &str = "-cloud-amd64";

/// Smaller packages are shells that depend on others.
const SMALLEST: u64 = 1 << 20;

/// A kernel, as its packages.
pub(super) struct Kernel {
    /// The series it was asked for by.
    pub(super) series: Series,
    /// What it calls itself (`uname -r`).
    pub(super) release: String,
    /// Where its packages are.
    directory: PathBuf,
}

/// A kernel that can be booted.
pub(super) struct Unpacked {
    /// The file that is booted.
    pub(super) image: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
}

/// A kernel of each series. What was fetched is kept below `directory`, and nothing newer is asked
/// for until that is removed there. Where one cannot be had, the others still can.
pub(super) fn each(serieses: &[Series], directory: &Path) -> Result<Vec<Result<Kernel>>> {
    let home = |series: &Series| directory.join(series.to_string());
    let mut missing = Vec::new();
    for series in serieses {
        fs::create_dir_all(home(series)).context("could not make a directory")?;
        if kept(*series, &home(series))?.is_none() {
            missing.push(*series);
        }
    }
    let fetched = if missing.is_empty() {
        Ok(Vec::new())
    } else {
        fetch(&missing, &home)
    };
    let kernels = serieses.iter().map(|series| {
        if let Some(kept) = kept(*series, &home(series))? {
            println!("ok: kernel {series}: {}", kept.release);
            return Ok(kept);
        }
        match &fetched {
            Ok(failures) => {
                let failure = failures.iter().find(|(failed, _)| failed == series);
                bail!("{}", failure.map_or("not fetched", |(_, why)| why.as_str()))
            }
            Err(error) => bail!("{error:#}"),
        }
    });
    Ok(kernels.collect())
}

/// A kernel fetched before, whose directory bears its name.
fn kept(series: Series, home: &Path) -> Result<Option<Kernel>> {
    let entries = fs::read_dir(home);
    let entries = entries.with_context(|| format!("could not list {}", home.display()))?;
    let mut entries = entries.filter_map(Result::ok);
    // The others are of a run that was cut off, or goes on beside this one.
    let kept = entries.find(|entry| entry.file_name().to_string_lossy().ends_with(FLAVOUR));
    Ok(kept.map(|entry| Kernel {
        series,
        release: entry.file_name().to_string_lossy().into_owned(),
        directory: entry.path(),
    }))
}

/// Fetches the packages of each series; tells why one could not be fetched.
fn fetch(serieses: &[Series], home: &impl Fn(&Series) -> PathBuf) -> Result<Vec<(Series, String)>> {
    let lists = tempfile::tempdir().context("could not make a directory for lists")?;
    let mut suites = Vec::new();
    for suite in serieses.iter().flat_map(|series| series.suites()) {
        if !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    let mirror = Mirror::open(&suites, lists.path())?;
    let packages = mirror.packages()?;
    let mut failures = Vec::new();
    for series in serieses {
        let fetched = newest(*series, &packages).with_context(|| {
            let suites = series.suites().map(|(_, suite)| suite).join(" and ");
            format!("{suites} have no kernel {series}")
        });
        let fetched = fetched.and_then(|(release, names)| {
            let home = home(series);
            let scratch = tempfile::tempdir_in(&home).context("could not make a directory")?;
            let arrived = scratch.path().join("arrived");
            fs::create_dir(&arrived).context("could not make a directory")?;
            mirror.download(&names, &arrived)?;
            fs::rename(arrived, home.join(release)).context("could not keep what was fetched")
        });
        if let Err(error) = fetched {
            failures.push((*series, format!("{error:#}")));
        }
    }
    Ok(failures)
}

/// The newest kernel of a series among the packages: what it calls itself, and what it is in.
fn newest(series: Series, packages: &[Package]) -> Option<(String, Vec<String>)> {
    let kernels = packages.iter().filter_map(|package| {
        let (release, parts) = if let Some(release) = package.name.strip_prefix(BINARY) {
            (release, vec![BINARY, MODULES])
        } else {
            (package.name.strip_prefix(IMAGE)?, vec![IMAGE])
        };
        // There are unsigned ones, too: linux-image-unsigned-*.
        let is_one = release.starts_with(|first: char| first.is_ascii_digit())
            && release.ends_with(FLAVOUR)
            && package.size >= SMALLEST
            && series.has(&package.version);
        is_one.then_some((numbers(&package.version), release, parts))
    });
    let (_, release, parts) = kernels.max()?;
    let names = parts.iter().map(|part| format!("{part}{release}"));
    Some((release.to_owned(), names.collect()))
}

/// The numbers in a version, which are all that differs between two kernels of one archive.
fn numbers(version: &str) -> Vec<u64> {
    let numbers = version.split(|letter: char| !letter.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

impl Kernel {
    /// Unpacks it below `directory`.
    pub(super) fn unpack(&self, directory: &Path) -> Result<Unpacked> {
        let archives = fs::read_dir(&self.directory).context("could not list the packages")?;
        for archive in archives.filter_map(Result::ok) {
            let mut unpack = Command::new("dpkg-deb");
            cargo::run(unpack.arg("--extract").arg(archive.path()).arg(directory))?;
        }
        self.find(directory)
    }

    /// Finds its parts where it was unpacked: modules in /usr/lib or /lib, the kernel in /boot,
    /// and from 7.2 on beside its modules.
    fn find(&self, directory: &Path) -> Result<Unpacked> {
        let release = &self.release;
        let find = |what: &str, places: [String; 2]| {
            let mut places = places.iter().map(|place| directory.join(place));
            let found = places.find(|place| place.exists());
            found.with_context(|| format!("the package of {release} has no {what}"))
        };
        Ok(Unpacked {
            image: find(
                "kernel",
                [
                    format!("boot/vmlinuz-{release}"),
                    format!("usr/lib/modules/{release}/vmlinuz"),
                ],
            )?,
            modules: find(
                "modules",
                ["usr/lib", "lib"].map(|place| format!("{place}/modules/{release}/kernel")),
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, size: u64) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            size,
        }
    }

    #[test]
    fn the_newest_kernel_of_a_series_is_found_by_its_version() {
        let packages = [
            package("linux-image-6.1.0-9-cloud-amd64", "6.1.190-1", 26 << 20),
            package("linux-image-6.1.0-56-cloud-amd64", "6.1.192-2", 26 << 20),
            package("linux-image-6.1-cloud-amd64", "6.1.999-1", 1500),
            package("linux-image-6.1.0-57-amd64", "6.1.193-1", 70 << 20),
            package("linux-image-6.12.9+deb13-cloud-amd64", "6.12.9-1", 30 << 20),
            package("linux-image-7.3.4-cloud-amd64", "7.3.4-1", 2000),
            package("linux-binary-7.3.4-cloud-amd64", "7.3.4-1", 13 << 20),
            package(
                "linux-binary-unsigned-7.3.4-cloud-amd64",
                "7.3.4-1",
                13 << 20,
            ),
            package("linux-binary-7.2.13-cloud-amd64", "7.2.13-1", 13 << 20),
        ];
        let newest = |series: &str| newest(series.parse().unwrap(), &packages);
        let (release, names) = newest("6.1").unwrap();
        assert_eq!(release, "6.1.0-56-cloud-amd64");
        assert_eq!(names, ["linux-image-6.1.0-56-cloud-amd64"]);
        let (release, names) = newest("newest").unwrap();
        assert_eq!(release, "7.3.4-cloud-amd64");
        let expected = [
            "linux-binary-7.3.4-cloud-amd64",
            "linux-modules-7.3.4-cloud-amd64",
        ];
        assert_eq!(names, expected);
        assert_eq!(newest("5.10"), None);
    }

    #[test]
    fn its_parts_are_found_wherever_a_release_of_debian_has_them() {
        for (image, modules) in [
            ("boot/vmlinuz-1-cloud-amd64", "lib/modules/1-cloud-amd64"),
            (
                "usr/lib/modules/1-cloud-amd64/vmlinuz",
                "usr/lib/modules/1-cloud-amd64",
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let modules = directory.path().join(modules).join("kernel");
            fs::create_dir_all(&modules).unwrap();
            let image = directory.path().join(image);
            fs::create_dir_all(image.parent().unwrap()).unwrap();
            fs::write(&image, "").unwrap();
            let kernel = Kernel {
                series: Series::Newest,
                release: "1-cloud-amd64".to_owned(),
                directory: PathBuf::new(),
            };
            let found = kernel.find(directory.path()).unwrap();
            assert_eq!((found.image, found.modules), (image, modules));
        }
    }
}
