//! What must hold of any path of a cgroup.

use super::*;

/// As /proc/PID/cgroup, and as a path itself.
pub(crate) fn cgroup(text: &str) {
    if let Some(path) = telling_path(text) {
        assert!(path.starts_with('/') && !path.contains('\n') && text.contains(path));
        of(path);
    }
    of(text);
    assert_eq!(label(&label(text)), label(text));
    shown(&comm(text.as_bytes()));
}

fn of(path: &str) {
    let workload = Workload::of_cgroup(path);
    let (kind, name) = workload.name.split_once(':').unwrap_or_default();
    let owner = (&workload.pod_uid, &workload.container_id, &workload.unit);
    match owner {
        (Some(uid), ..) => assert!(kind == "pod" && name.starts_with(uid.as_str())),
        (None, Some(id), _) => assert!(kind == "container" && id.starts_with(name)),
        (None, None, Some(_)) => assert!(kind == "unit" || kind == "cgroup"),
        (None, None, None) => assert_eq!(kind, "cgroup"),
    }
    assert!(!name.is_empty());
    shown(&workload.name);
    shown(workload.unit.as_deref().unwrap_or_default());
    if let Some(id) = &workload.container_id {
        assert!(id.len() == 64 && is_hex(id));
    }
    if let Some(uid) = &workload.pod_uid {
        assert!(matches!(uid.len(), 32 | 36) && uid.split('-').all(is_hex));
    }
}

fn shown(text: &str) {
    assert!(text.chars().count() <= LONGEST && !text.chars().any(steers));
}
