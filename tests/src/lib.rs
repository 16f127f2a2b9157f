//! What the tests against the running kernel share.
//!
//! Every test makes its own network namespace ([`netns`]), loads the programs for that namespace
//! alone ([`watch`]) and does something to real sockets in it.

pub mod netns;
pub mod watch;
