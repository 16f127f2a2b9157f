//! Sockets that stay in FIN_WAIT1: why, whose they are, and when they end.

use anyhow::Result;
use tests::{disturbed::undisturbed, stall::punctually, unfinished::FIN_WAIT1};

#[test]
fn a_path_cut_with_the_fin_alone_is_unacked() -> Result<()> {
    FIN_WAIT1.cut_with_the_fin_alone()
}

#[test]
fn a_path_cut_with_data_queued_is_unacked() -> Result<()> {
    FIN_WAIT1.cut_with_data_queued()
}

#[test]
fn a_peer_that_never_reads_is_a_zero_window() -> Result<()> {
    FIN_WAIT1.a_peer_that_never_reads()
}

#[test]
fn a_peer_that_reads_slowly_drains() -> Result<()> {
    FIN_WAIT1.a_peer_that_reads_slowly()
}

#[test]
fn a_slow_path_drains() -> Result<()> {
    undisturbed(|| FIN_WAIT1.a_slow_path())
}

#[test]
fn orphan_retries_end_an_orphan_when_foretold() -> Result<()> {
    punctually(|| FIN_WAIT1.orphan_retries_end_an_orphan())
}

#[test]
fn the_user_timeout_ends_orphans_and_others_when_foretold() -> Result<()> {
    punctually(|| FIN_WAIT1.the_user_timeout_ends_both())
}

#[test]
fn an_orphan_whose_peer_answers_probes_ends_when_foretold() -> Result<()> {
    punctually(|| FIN_WAIT1.the_longest_timeout_ends_an_orphan_that_probes())
}
