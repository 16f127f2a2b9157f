//! The modules that tests need: taken from the kernel's package, in the order they are loaded.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Those that tests need by name: cables, slow ones too, a tunnel, rules that drop and refuse
/// packets, and what `ss` asks. Where one is built in, the kernel's package has no file of it.
const WANTED: [&str; 8] = [
    "veth",
    "sch_tbf",
    "tun",
    "nf_tables",
    "nft_limit",
    "nft_reject_inet",
    "inet_diag",
    "tcp_diag",
];

/// Puts the modules from below `modules` into `directory`, named so that each comes after those
/// it needs.
pub(super) fn copy(modules: &Path, directory: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    list(modules, &mut files)?;
    let mut loaded = Vec::new();
    for name in WANTED {
        load(name, &files, &mut loaded, directory)?;
    }
    Ok(())
}

/// Copies a module, after those it needs, where it is not there yet.
fn load(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<String>,
    directory: &Path,
) -> Result<()> {
    let is_loaded = loaded.iter().any(|module| module == name);
    let (false, Some(file)) = (is_loaded, files.get(name)) else {
        return Ok(());
    };
    let module = read(file)?;
    for needed in needs(&module) {
        load(&needed, files, loaded, directory)?;
    }
    let place = directory.join(format!("{:02}-{name}.ko", loaded.len()));
    fs::write(&place, module).with_context(|| format!("could not write {}", place.display()))?;
    loaded.push(name.to_owned());
    Ok(())
}

/// The files of modules below a directory, by the modules' names.
fn list(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("could not list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if let Some((name, _)) = path
            .file_name()
            .and_then(OsStr::to_str)
            .and_then(|file| file.split_once(".ko"))
        {
            // The kernel's names have no dashes, whatever the files' do.
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// A module as the kernel takes it; newer packages compress them.
fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension() != Some(OsStr::new("xz")) {
        return fs::read(file).with_context(|| format!("could not read {}", file.display()));
    }
    let mut xz = Command::new("xz");
    let output = xz.args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.context("could not start xz")?;
    if !output.status.success() {
        bail!("xz could not unpack {}", file.display());
    }
    Ok(output.stdout)
}

/// The modules that a module says it needs: a string `depends=…` among those that end in zeros.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let start = module.windows(KEY.len()).position(|bytes| bytes == KEY);
    let names = start.map_or(&[][..], |start| &module[start + KEY.len()..]);
    let names = names.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nfnetlink,libcrc32c\0name=nf_tables\0";
        assert_eq!(needs(module), ["nfnetlink", "libcrc32c"]);
        assert!(needs(b"\x7fELF\0depends=\0name=veth\0").is_empty());
        assert!(needs(b"\x7fELF").is_empty());
    }

    #[test]
    fn each_is_named_after_those_it_needs() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let net = from.path().join("net");
        fs::create_dir(&net).unwrap();
        for (file, needs) in [
            ("tun.ko", ""),
            ("tcp_diag.ko", "inet_diag"),
            ("inet-diag.ko", ""),
            ("nft_limit.ko", "nf_tables"),
            ("nf_tables.ko", "nfnetlink"),
            ("nfnetlink.ko", ""),
            ("other.ko", ""),
        ] {
            fs::write(net.join(file), format!("\0depends={needs}\0")).unwrap();
        }
        copy(from.path(), to.path()).unwrap();
        let entries = fs::read_dir(to.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        let expected = [
            "00-tun.ko",
            "01-nfnetlink.ko",
            "02-nf_tables.ko",
            "03-nft_limit.ko",
            "04-inet_diag.ko",
            "05-tcp_diag.ko",
        ];
        assert_eq!(names, expected);
    }
}
