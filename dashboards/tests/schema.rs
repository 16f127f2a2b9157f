//! The boards are what Grafana's published schema says a dashboard is.
//!
//! `@grafana/schema` has it as types, so the compiler of those judges: `cargo xtask setup` installs
//! both.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use dashboards::{boards, json};

/// What the compiler says of a board; nothing, where there is nothing to say.
fn complaints(board: &str) -> Result<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = fs::canonicalize(own.join("../target/tools/npm/node_modules"))
        .context("the types are not here: `cargo xtask setup` installs them")?;
    let folder = tempfile::tempdir()?;
    fs::copy(
        own.join("tests/schema/types.ts"),
        folder.path().join("types.ts"),
    )?;
    std::os::unix::fs::symlink(&modules, folder.path().join("node_modules"))?;
    let text =
        format!("import type {{ Board }} from './types';\nexport const board: Board = {board};\n");
    fs::write(folder.path().join("board.ts"), text)?;
    let compiler: PathBuf = modules.join("typescript/bin/tsc");
    let output = Command::new("node")
        .arg(compiler)
        .args([
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--pretty",
            "false",
        ])
        .args([
            "--module",
            "esnext",
            "--moduleResolution",
            "bundler",
            "--target",
            "es2022",
        ])
        .arg("board.ts")
        .current_dir(folder.path())
        .output()
        .context("node cannot be run: `cargo xtask setup` installs it")?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() != said.contains("error TS"),
        "{}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

#[test]
fn every_board_is_a_dashboard_of_grafana() -> Result<()> {
    for board in boards() {
        let said = complaints(&json(&board))?;
        ensure!(said.is_empty(), "{}: {said}", board.uid);
    }
    Ok(())
}

#[test]
fn a_broken_board_is_none() -> Result<()> {
    let boards = boards();
    let board = json(boards.first().context("no board")?);
    for (part, broken) in [
        // A panel type that Grafana has deprecated.
        ("\"type\": \"timeseries\"", "\"type\": \"graph\""),
        // A value that is none of those there are.
        ("\"colorMode\": \"value\"", "\"colorMode\": \"values\""),
        ("\"placement\": \"bottom\"", "\"placement\": \"below\""),
        // The same for one column of a table.
        ("\"color-background\"", "\"colour-background\""),
        ("\"custom.cellOptions\"", "\"custom.cellOption\""),
        // A misspelt field.
        ("\"gridPos\"", "\"gridpos\""),
        ("\"schemaVersion\"", "\"schema\""),
        ("\"legendFormat\"", "\"legend\""),
    ] {
        ensure!(board.contains(part), "{part} is nowhere");
        let said = complaints(&board.replace(part, broken))?;
        ensure!(said.contains("error TS"), "{broken} is taken");
    }
    Ok(())
}
