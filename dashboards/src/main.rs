//! Writes the dashboards' JSON to `dashboards/grafana`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use dashboards::{boards, file_name, json};

fn main() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    for board in boards() {
        let path = folder.join(file_name(&board));
        fs::write(&path, json(&board))
            .with_context(|| format!("could not write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
