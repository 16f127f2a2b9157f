//! The workload that a cgroup's path names: a systemd unit, a container, a Kubernetes pod.
//!
//! Whoever may make a cgroup chooses its name, so the path is taken as hostile: what comes of it
//! is bounded and free of characters that a terminal acts on.

use std::cmp::Reverse;

/// The longest label, in characters.
const LONGEST: usize = 128;

/// A workload, with what else its cgroup's path says of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// The label: `pod:UID/CONTAINER`, `pod:UID`, `container:ID` (12 hex digits of it),
    /// `unit:nginx.service`, else `cgroup:LAST_SEGMENT`.
    pub name: String,
    /// The innermost systemd service or scope, up to the container where there is one.
    pub unit: Option<String>,
    /// The Kubernetes pod's UID, with dashes; that of a static pod has none.
    pub pod_uid: Option<String>,
    /// The innermost container's id, all 64 hex digits.
    pub container_id: Option<String>,
}

impl Workload {
    /// That of a cgroup whose path is not known.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            name: "unknown".to_owned(),
            unit: None,
            pod_uid: None,
            container_id: None,
        }
    }

    /// That of the cgroup at `path`, as /proc/PID/cgroup writes it.
    #[must_use]
    pub fn of_cgroup(path: &str) -> Self {
        let names = Names::of(path);
        let pod_uid = names.pod.map(|uid| uid.replace('_', "-"));
        let short = names.container.and_then(|id| id.get(..12));
        let name = match (&pod_uid, short, names.lxc, names.unit) {
            (Some(uid), Some(id), ..) => format!("pod:{uid}/{id}"),
            (Some(uid), None, ..) => format!("pod:{uid}"),
            (None, Some(id), ..) => format!("container:{id}"),
            (None, None, Some(name), _) => format!("cgroup:{name}"),
            (None, None, None, Some(unit)) => format!("unit:{unit}"),
            (None, None, None, None) => {
                format!("cgroup:{}", segments(path).next_back().unwrap_or("/"))
            }
        };
        Self {
            name: label(&name),
            unit: names.unit.map(label),
            pod_uid,
            container_id: names.container.map(Into::into),
        }
    }
}

/// Of the text of /proc/PID/cgroup, the path that says most: one that names a container or pod,
/// else a unit, else any but the root. Among equals that of cgroup v2 comes first, then systemd's
/// own hierarchy, then the controllers that every runtime sets.
///
/// The v2 line alone would mislead in the hybrid layout, where a container that its runtime moved
/// in the v1 hierarchies only is still in `/system.slice/containerd.service` there.
#[must_use]
pub fn telling_path(proc_pid_cgroup: &str) -> Option<&str> {
    // No name contains a newline: cgroup_mkdir() refuses it, for this file's sake.
    let lines = proc_pid_cgroup.split('\n').filter_map(hierarchy);
    let (_, path) = lines.max_by_key(|(place, path)| {
        let names = Names::of(path);
        (
            names.container.is_some(),
            names.pod.is_some(),
            names.unit.is_some() || names.lxc.is_some(),
            segments(path).next().is_some(),
            Reverse(*place),
        )
    })?;
    Some(path)
}

/// Of a line `ID:CONTROLLERS:PATH`: the hierarchy's place in the order of preference, and the path.
fn hierarchy(line: &str) -> Option<(usize, &str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let preferred = ["", "name=systemd", "memory", "cpu", "pids"];
    let place = preferred
        .iter()
        .position(|name| controllers.split(',').any(|controller| controller == *name));
    // proc_cgroup_show() says so of a cgroup that was removed while a zombie was in it.
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.starts_with('/')
        .then_some((place.unwrap_or(preferred.len()), path))
}

/// What the segments of a path name, as they stand there.
#[derive(Clone, Copy, Default)]
struct Names<'a> {
    unit: Option<&'a str>,
    pod: Option<&'a str>,
    container: Option<&'a str>,
    lxc: Option<&'a str>,
}

impl<'a> Names<'a> {
    /// Reads the path from the root inwards. What stands further in is nearer to the process,
    /// but a unit inside a container or machine is one of another system: its name would mix with
    /// those of the host.
    fn of(path: &'a str) -> Self {
        let mut names = Self::default();
        let mut innermost = None;
        let mut enclosed = false;
        let mut parent = "";
        for segment in segments(path) {
            innermost = match unit(segment) {
                // A service manager of its own inside a unit (user@1000.service, a delegated
                // service): the unit says which one.
                Some("init.scope") => innermost.or(Some("init.scope")),
                Some(unit) => Some(unit),
                None => innermost,
            };
            let entered = names.enter(parent, segment);
            if entered || !enclosed {
                names.unit = innermost;
            }
            enclosed |= entered;
            parent = segment;
        }
        names
    }

    /// Takes in a segment; whether it is a pod, a container or a machine.
    fn enter(&mut self, parent: &str, segment: &'a str) -> bool {
        let mut entered = false;
        // Where containerd takes a path meant for systemd literally, one segment holds both:
        // `kubepods-burstable-podUID.slice:cri-containerd:ID`.
        for part in segment.split(':') {
            if let Some(uid) = pod(part) {
                self.pod = Some(uid);
                // A container further out is the node that the pod runs on, as kind makes them.
                self.container = None;
                entered = true;
            } else if let Some(id) = container(part) {
                self.container = Some(id);
                entered = true;
            }
        }
        if entered || self.pod.is_some() || self.container.is_some() {
            return entered;
        }
        if parent == "lxc" || segment.starts_with("lxc.payload.") {
            self.lxc = Some(segment);
            return true;
        }
        // systemd-nspawn, started by hand or as a service; libvirt's machines too.
        let scope = segment.strip_suffix(".scope");
        let machine = scope.is_some_and(|stem| stem.starts_with("machine-"))
            || segment.starts_with("systemd-nspawn@");
        if machine {
            self.lxc = None;
        }
        machine
    }
}

fn segments(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

/// The systemd unit that a segment is, if a service or scope: slices only hold others.
fn unit(segment: &str) -> Option<&str> {
    // systemd puts `_` before a name that could be a file of the kernel's, as of io.service
    // (cg_escape()).
    let unit = segment.strip_prefix('_').unwrap_or(segment);
    let stem = unit
        .strip_suffix(".service")
        .or_else(|| unit.strip_suffix(".scope"))?;
    (!stem.is_empty()).then_some(unit)
}

/// The UID of the pod that a segment is: `podUID` of the cgroupfs driver, `…-podUID.slice` of the
/// systemd driver, which writes `_` for `-` since the dash separates slices.
fn pod(segment: &str) -> Option<&str> {
    let uid = match segment.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => segment.strip_prefix("pod")?,
    };
    // The kubelet gives a static pod the MD5 of its manifest.
    if uid.len() == 32 && is_hex(uid) {
        return Some(uid);
    }
    let groups = uid.split(['-', '_']);
    let lengths = groups.clone().map(str::len);
    (lengths.eq([8, 4, 4, 4, 12]) && groups.clone().all(is_hex)).then_some(uid)
}

/// The id of the container that a segment is: 64 hex digits, bare or after the runtime's name
/// (`docker-`, `cri-containerd-`, `crio-conmon-`, `libpod-payload-`, `kata_`), perhaps as a scope.
/// Which runtime it is does not matter: nothing else has such a name.
fn container(segment: &str) -> Option<&str> {
    let stem = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = stem.rsplit(['-', '_']).next()?;
    (id.len() == 64 && is_hex(id)).then_some(id)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The text as a label: bounded, and nothing in it that a terminal acts on.
pub(crate) fn label(text: &str) -> String {
    plain(text, LONGEST)
}

/// As many characters of a text from elsewhere, without what [`steers`] the terminal.
pub(crate) fn plain(text: &str, longest: usize) -> String {
    let clean = |sign: char| if steers(sign) { '\u{fffd}' } else { sign };
    text.chars().take(longest).map(clean).collect()
}

/// Whether a terminal acts on this rather than shows it, or shows others elsewhere for its sake:
/// control characters, and the marks, embeddings, overrides and isolates of the bidirectional
/// algorithm.
pub(crate) fn steers(sign: char) -> bool {
    sign.is_control()
        || matches!(sign, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A task's name likewise: up to its NUL, what is no UTF-8 replaced, too.
pub(crate) fn comm(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    label(&String::from_utf8_lossy(name))
}

#[cfg(any(test, fuzzing))]
#[path = "workload_fuzz.rs"]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f0c9d1e5ab84c2796e8d7b1a4f2c6038d5e9b7a1c3f4e6d8b0a2c4e6f8091a3";
    const OTHER: &str = "b7a1c3f4e6d8b0a2c4e6f8091a33f0c9d1e5ab84c2796e8d7b1a4f2c6038d5e9";
    const UID: &str = "1e597579-417e-482f-bf65-5fe170c3aebd";
    const STATIC: &str = "6d4b2f0a8c1e3d5f7a9b0c2d4e6f8a1b";

    /// Replaces `ID`, `SHORT` (12 digits of it), `OTHER`, `UID`, `UND` (the UID with underscores)
    /// and `STATIC`.
    fn full(pattern: &str) -> String {
        let text = pattern.replace("SHORT", &ID[..12]).replace("OTHER", OTHER);
        let text = text.replace("UND", &UID.replace('-', "_"));
        let text = text.replace("STATIC", STATIC).replace("UID", UID);
        text.replace("ID", ID)
    }

    /// Path, name and, where there is one, unit. What the name says of pod and container, their
    /// own fields say in full.
    const TABLE: &str = "
        # The root, and what is nothing in particular.
        /                                   cgroup:/
        //a//                               cgroup:a
        /..                                 cgroup:..
        /user.slice/user-1000.slice         cgroup:user-1000.slice
        /kubepods/burstable                 cgroup:burstable
        /system.slice/.service              cgroup:.service
        /system.slice/mnt-s3.mount          cgroup:mnt-s3.mount

        # systemd: system services, sub-cgroups, escaped names.
        /init.scope                         unit:init.scope     init.scope
        /system.slice/nginx.service         unit:nginx.service  nginx.service
        /../../system.slice/nginx.service   unit:nginx.service  nginx.service
        /system.slice/foo.service/init.scope  unit:foo.service  foo.service
        /system.slice/foo.service/worker/3  unit:foo.service    foo.service
        /system.slice/_io.service           unit:io.service     io.service
        /system.slice/system-postgresql.slice/postgresql@16-main.service \
            unit:postgresql@16-main.service postgresql@16-main.service
        /system.slice/system-dbus\\x2d:1.3\\x2dorg.x.slice/dbus-:1.3-org.x@0.service \
            unit:dbus-:1.3-org.x@0.service  dbus-:1.3-org.x@0.service

        # systemd: sessions, and the units of a user's manager.
        /user.slice/user-1000.slice/session-3.scope \
            unit:session-3.scope            session-3.scope
        /user.slice/user-1000.slice/user@1000.service/app.slice/foo.service \
            unit:foo.service                foo.service
        /user.slice/user-1000.slice/user@1000.service/init.scope \
            unit:user@1000.service          user@1000.service

        # Machines: systemd-nspawn, libvirt, LXC.
        /machine.slice/machine-web.scope/payload/system.slice/nginx.service \
            unit:machine-web.scope          machine-web.scope
        /machine.slice/systemd-nspawn@web.service/payload/system.slice/foo.service \
            unit:systemd-nspawn@web.service systemd-nspawn@web.service
        /machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator \
            unit:machine-qemu\\x2d1\\x2dvm.scope  machine-qemu\\x2d1\\x2dvm.scope
        /lxc/web                            cgroup:web
        /lxc/web/system.slice/nginx.service cgroup:web
        /lxc.payload.web                    cgroup:lxc.payload.web
        /lxc.payload.web/init.scope         cgroup:lxc.payload.web
        /lxc/web/machine.slice/machine-a.scope/x  unit:machine-a.scope  machine-a.scope
        /lxc.monitor.web                    cgroup:lxc.monitor.web
        /lxc.payload.web/docker/ID          container:SHORT

        # Docker: cgroupfs and systemd driver, rootless, systemd inside, Docker inside, ECS.
        /docker/ID                          container:SHORT
        /ID                                 container:SHORT
        /system.slice/docker-ID.scope       container:SHORT     docker-ID.scope
        /user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope \
            container:SHORT                 docker-ID.scope
        /system.slice/docker-ID.scope/init.scope  container:SHORT  docker-ID.scope
        /system.slice/docker-ID.scope/system.slice/nginx.service \
            container:SHORT                 docker-ID.scope
        /system.slice/docker-ID.scope/machine.slice/machine-a.scope \
            container:SHORT                 docker-ID.scope
        /docker/OTHER/docker/ID             container:SHORT
        /ecs/STATIC/ID                      container:SHORT
        /docker/buildkit/x3kd0p2            cgroup:x3kd0p2

        # containerd outside Kubernetes.
        /default/ID                         container:SHORT
        /default/web                        cgroup:web
        /system.slice/nerdctl-ID.scope      container:SHORT     nerdctl-ID.scope

        # Podman: systemd, its monitor, its own pods, cgroupfs, split from a unit, rootless, and
        # its health checks, which are units of the host.
        /machine.slice/libpod-ID.scope      container:SHORT     libpod-ID.scope
        /machine.slice/libpod-ID.scope/container  container:SHORT  libpod-ID.scope
        /machine.slice/libpod-conmon-ID.scope  container:SHORT  libpod-conmon-ID.scope
        /machine.slice/machine-libpod_pod_OTHER.slice/libpod-ID.scope/container \
            container:SHORT                 libpod-ID.scope
        /machine.slice/machine-libpod_pod_OTHER.slice  cgroup:machine-libpod_pod_OTHER.slice
        /libpod_parent/libpod-ID            container:SHORT
        /libpod_parent/OTHER/libpod-ID      container:SHORT
        /libpod_parent/conmon               cgroup:conmon
        /system.slice/web.service/libpod-payload-ID  container:SHORT  web.service
        /system.slice/web.service/supervisor  unit:web.service  web.service
        /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container \
            container:SHORT                 libpod-ID.scope
        /user.slice/user-1000.slice/user@1000.service/user.slice/podman-pause-1f.scope \
            unit:podman-pause-1f.scope      podman-pause-1f.scope
        /system.slice/ID.service            unit:ID.service     ID.service

        # Kubernetes, cgroupfs driver: each class, the pod itself, static pods, CRI-O, Kata.
        /kubepods/burstable/podUID/ID       pod:UID/SHORT
        /kubepods/besteffort/podUID/ID      pod:UID/SHORT
        /kubepods/podUID/ID                 pod:UID/SHORT
        /kubepods/burstable/podUID          pod:UID
        /kubepods/burstable/podSTATIC/ID    pod:STATIC/SHORT
        /kubepods/burstable/podUID/crio-ID  pod:UID/SHORT
        /kubepods/podUID/kata_ID            pod:UID/SHORT
        /../../podUID/ID                    pod:UID/SHORT
        /kubepods/burstable/podweb/x        cgroup:x

        # Kubernetes, systemd driver: the same, and Docker.
        /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUND.slice\
            /cri-containerd-ID.scope        pod:UID/SHORT       cri-containerd-ID.scope
        /kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUND.slice\
            /docker-ID.scope/kube-proxy     pod:UID/SHORT       docker-ID.scope
        /kubepods.slice/kubepods-podUND.slice/crio-ID.scope/container \
            pod:UID/SHORT                   crio-ID.scope
        /kubepods.slice/kubepods-podUND.slice/crio-conmon-ID.scope \
            pod:UID/SHORT                   crio-conmon-ID.scope
        /kubepods.slice/kubepods-podUND.slice  pod:UID
        /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice\
            /cri-containerd-ID.scope        pod:STATIC/SHORT    cri-containerd-ID.scope

        # containerd with the cgroupfs driver under a kubelet with the systemd driver.
        /system.slice/containerd.service/kubepods-burstable-podUND.slice:cri-containerd:ID \
            pod:UID/SHORT                   containerd.service
        /kubepods-burstable-podUND.slice:cri-containerd:ID  pod:UID/SHORT

        # A kubelet below the root, as kind has it; its node is a container.
        /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice\
            /kubelet-kubepods-besteffort-podUND.slice/cri-containerd-ID.scope \
            pod:UID/SHORT                   cri-containerd-ID.scope
        /kubelet/kubepods/burstable/podUID/ID  pod:UID/SHORT
        /docker/OTHER/kubelet/kubepods/podUID/ID  pod:UID/SHORT
        /docker/OTHER/kubelet/kubepods/podUID  pod:UID
        /system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice\
            /kubelet-kubepods-podUND.slice/cri-containerd-ID.scope \
            pod:UID/SHORT                   cri-containerd-ID.scope
        /system.slice/docker-OTHER.scope/system.slice/containerd.service\
            /kubepods-podUND.slice:cri-containerd:ID \
            pod:UID/SHORT                   containerd.service

        # Docker in a pod.
        /kubepods/burstable/podUID/OTHER/docker/ID  pod:UID/SHORT
        /kubepods.slice/kubepods-podUND.slice/cri-containerd-OTHER.scope/docker/ID \
            pod:UID/SHORT                   cri-containerd-OTHER.scope
    ";

    #[test]
    fn paths_of_each_runtime() {
        let rows = TABLE.lines().map(str::trim);
        for row in rows.filter(|row| !row.is_empty() && !row.starts_with('#')) {
            let mut words = row.split_whitespace();
            let (path, name) = (words.next().unwrap(), words.next().unwrap());
            let uid = if name.contains("STATIC") { STATIC } else { UID };
            let expected = Workload {
                name: full(name),
                unit: words.next().map(full),
                pod_uid: name.starts_with("pod:").then(|| uid.to_owned()),
                container_id: name.ends_with("SHORT").then(|| ID.to_owned()),
            };
            assert_eq!(Workload::of_cgroup(&full(path)), expected, "{row}");
            assert_eq!(words.next(), None, "{row}");
        }
        assert_eq!(Workload::of_cgroup("").name, "cgroup:/");
    }

    #[test]
    fn what_is_nearly_an_id_is_none() {
        for segment in [
            &ID[1..],
            &format!("{ID}0"),
            &ID.replace('3', "g"),
            &format!("docker-{}.scope", &ID[1..]),
            &format!("docker-{ID}.slice"),
        ] {
            let workload = Workload::of_cgroup(&format!("/docker/{segment}"));
            assert_eq!(workload.container_id, None, "{segment}");
        }
        for segment in [
            &format!("pod{}", &UID[1..]),
            &format!("pod{}", &STATIC[1..]),
            &format!("kubepods-pod{UID}0.slice"),
            "pod1e597579--417e482f-bf65-5fe170c3aebd",
            "pod",
            ".slice",
        ] {
            let workload = Workload::of_cgroup(&format!("/kubepods/{segment}"));
            assert_eq!(workload.pod_uid, None, "{segment}");
        }
    }

    #[test]
    fn the_path_that_says_most() {
        let cases = [
            // cgroup v2 alone.
            (
                "0::/system.slice/nginx.service\n",
                "/system.slice/nginx.service",
            ),
            ("0::/\n", "/"),
            ("0::/a.service (deleted)\n", "/a.service"),
            ("0::/a:b.service", "/a:b.service"),
            // Hybrid: the unit stands in both.
            (
                "4:memory:/system.slice\n1:name=systemd:/a.service\n0::/b.service\n",
                "/b.service",
            ),
            (
                "5:memory:/user.slice\n1:name=systemd:/user.slice/session-1.scope\n0::/\n",
                "/user.slice/session-1.scope",
            ),
            // Hybrid: the runtime knows the v1 hierarchies only.
            (
                "12:rdma:/\n3:memory:/docker/ID\n1:name=systemd:/docker/ID\n\
                 0::/system.slice/containerd.service\n",
                "/docker/ID",
            ),
            (
                "9:pids:/kubepods/podUID/ID\n4:memory:/kubepods/podUID/ID\n1:name=systemd:/\n",
                "/kubepods/podUID/ID",
            ),
            (
                "9:memory:/docker/OTHER\n1:name=systemd:/system.slice/docker.service\n",
                "/docker/OTHER",
            ),
            (
                "2:memory:/kubepods/podUID\n1:name=systemd:/docker/ID\n",
                "/docker/ID",
            ),
            (
                "2:memory:/kubepods/podUID\n1:name=systemd:/system.slice/crio.service\n",
                "/kubepods/podUID",
            ),
            // v1 without systemd.
            (
                "9:pids:/p\n8:freezer:/f\n5:cpu,cpuacct:/c\n4:memory:/m\n0::/\n",
                "/m",
            ),
            (
                "9:pids:/p\n8:freezer:/f\n5:cpu,cpuacct:/c\n4:memory:/\n0::/\n",
                "/c",
            ),
            ("3:memory:/lxc/web\n1:name=systemd:/x\n0::/y\n", "/lxc/web"),
            ("8:freezer:/f\n", "/f"),
        ];
        for (text, expected) in cases {
            assert_eq!(telling_path(&full(text)), Some(&*full(expected)), "{text}");
        }
    }

    #[test]
    fn a_text_without_a_path() {
        for text in ["", "\n", "0::", "0:/", "x", "0::relative\n"] {
            assert_eq!(telling_path(text), None, "{text:?}");
        }
    }

    #[test]
    fn labels_are_bounded_and_clean() {
        let workload = Workload::of_cgroup("/a\u{1b}[2J\t\u{9b}\u{7f}\u{202e}b.service");
        assert_eq!(
            workload.name,
            "unit:a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\u{fffd}b.service"
        );
        let long = Workload::of_cgroup(&format!("/{}.service", "é".repeat(300)));
        assert_eq!(long.name, format!("unit:{}", "é".repeat(LONGEST - 5)));
        assert_eq!(long.unit, Some("é".repeat(LONGEST)));
    }

    /// Numbers that look random and are the same each time (xorshift64).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 33).unwrap() % end
        }
    }

    #[test]
    fn odd_paths_do_no_harm() {
        let pieces = [
            "/",
            "/",
            "/",
            ":",
            "-",
            "_",
            ".",
            "..",
            "\0",
            "\u{1b}]0;",
            "\n",
            "\r",
            "\u{85}",
            "é",
            "€",
            "🦀",
            "\u{fffd}",
            "\u{301}",
            " (deleted)",
            "0::",
            "1:name=systemd:",
            "memory",
            "pod",
            "-pod",
            ".slice",
            ".service",
            ".scope",
            "init.scope",
            "lxc",
            "lxc.payload.",
            "machine-",
            "systemd-nspawn@",
            "docker-",
            "libpod-",
            "kubepods",
            "0",
            "abcdef012345",
            ID,
            UID,
            STATIC,
            "1e597579_417e_482f_bf65_5fe170c3aebd",
        ];
        let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
        let clean = |text: &str| text.chars().count() <= LONGEST && !text.chars().any(steers);
        for _ in 0..20_000 {
            let mut odd = String::new();
            for _ in 0..numbers.below(24) {
                let piece = pieces[numbers.below(pieces.len())];
                // Now and then cut short, or long.
                let end = match numbers.below(4) {
                    0 => piece.floor_char_boundary(numbers.below(piece.len() + 1)),
                    _ => piece.len(),
                };
                let times = if numbers.below(50) == 0 { 200 } else { 1 };
                odd.push_str(&piece[..end].repeat(times));
            }
            let workload = Workload::of_cgroup(&odd);
            let texts = [
                Some(&workload.name),
                workload.unit.as_ref(),
                workload.pod_uid.as_ref(),
            ];
            assert!(
                texts.into_iter().flatten().all(|text| clean(text)),
                "{odd:?}"
            );
            assert!(
                workload
                    .container_id
                    .is_none_or(|id| id.len() == 64 && is_hex(&id))
            );
            if let Some(path) = telling_path(&odd) {
                assert!(odd.contains(path) && path.starts_with('/'), "{odd:?}");
            }
        }
    }

    #[test]
    fn a_hostile_name_is_made_printable() {
        assert_eq!(comm(b"nginx\0garbage"), "nginx");
        assert_eq!(comm(b"a\n\x1b[2Jb\0"), "a\u{fffd}\u{fffd}[2Jb");
        assert_eq!(comm(b"\xff\"\\\0"), "\u{fffd}\"\\");
        assert_eq!(comm(b"sixteen-and-none"), "sixteen-and-none");
    }
}
