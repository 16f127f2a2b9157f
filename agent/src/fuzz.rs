//! What must hold of whatever others write: each function takes any bytes, and panics where
//! something does not hold of what the agent makes of them. No release has this module.
//!
//! libFuzzer thinks up bytes for them (`agent/fuzz`), and ordinary tests do the same with those
//! that were kept (`agent/fuzz/corpus`).

use crate::{
    api::fuzz as api, census::fuzz as census, client::fuzz as client, events::fuzz as events,
    kernel::fuzz as kernel, limits::fuzz as limits, top::fuzz as top, web::fuzz as web, workload,
};

macro_rules! targets {
    ($($(#[$doc:meta])* $target:ident: $property:expr;)*) => {
        $($(#[$doc])* pub fn $target(input: &[u8]) {
            ($property)(input);
        })*

        #[cfg(test)]
        mod kept {
            /// Each target's name.
            pub(super) const TARGETS: &[&str] = &[$(stringify!($target)),*];

            $(#[test] fn $target() {
                super::tests::replay(stringify!($target), super::$target);
            })*
        }
    };
}

targets! {
    /// A record of the ring buffer, after the time it is read at.
    decode: crate::decode::fuzz::record;
    /// The kernel's types.
    btf: kernel::types;
    /// /proc/PID/cgroup, the path of a cgroup, or mountinfo.
    cgroup: |input| {
        if let Ok(text) = str::from_utf8(input) {
            workload::fuzz::cgroup(text);
            census::mountinfo(text);
        }
    };
    /// Files of /proc/net and /proc/sys/net, and fdinfo.
    proc: |input| {
        if let Ok(text) = str::from_utf8(input) {
            limits::files(text);
            kernel::fdinfo(text);
        }
    };
    /// The file of `--web.config.file`.
    web_config: |input| text(input, web::config);
    /// A certificate in DER, or the names to make one out to.
    certificate: web::certificate;
    /// The query of a request to the API.
    query: |input| text(input, api::query);
    /// An answer of `/api/v1/events`, after the length of the pieces it comes in.
    stream: events::stream;
    /// The URL of an agent.
    url: |input| text(input, client::url);
    /// Keys pressed in `agent top`, and below them what an agent tells it, a JSON document a line.
    top: |input| text(input, top::session);
}

fn text(input: &[u8], property: fn(&str)) {
    if let Ok(text) = str::from_utf8(input) {
        property(text);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::kept::TARGETS;

    fn fuzz() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    /// The names in a folder.
    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", folder.display()));
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// Calls a target with every input that was kept for it.
    pub(super) fn replay(target: &str, property: fn(&[u8])) {
        let folder = fuzz().join("corpus").join(target);
        let inputs = names(&folder);
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        for name in inputs {
            // Shown where the property fails.
            println!("{target}/{name}");
            property(&fs::read(folder.join(name)).unwrap());
        }
    }

    #[test]
    fn each_target_has_an_executable_and_inputs() {
        let targets: BTreeSet<String> = TARGETS.iter().map(ToString::to_string).collect();
        assert_eq!(names(&fuzz().join("corpus")), targets);
        let sources = targets.iter().map(|target| format!("{target}.rs"));
        assert_eq!(names(&fuzz().join("fuzz_targets")), sources.collect());
        let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
        for target in targets {
            let line = format!("path = \"fuzz_targets/{target}.rs\"");
            assert!(manifest.contains(&line), "{target}");
        }
    }
}
