//! docs/metrics.md says what the table of families says.

use std::path::Path;

#[test]
fn the_page_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let table = agent::metrics::markdown();
    if std::env::var_os("CONNSTATE_BLESS").is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap();
    assert!(
        page == table,
        "docs/metrics.md is not what the table of families says: write it anew with \
         CONNSTATE_BLESS=1 cargo test -p agent --test metrics_doc"
    );
}
