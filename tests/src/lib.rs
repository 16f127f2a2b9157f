//! What the tests against the running kernel share.
//!
//! Every test makes its own network namespace ([`netns`]), loads the programs for that namespace
//! alone ([`watch`]) and does something to real sockets in it: most make connections end in one
//! of the [`ways`] known and compare what was counted with the [`trace`] these must leave.

pub mod alertmanager;
pub mod bpf_ids;
pub mod censuses;
pub mod certificates;
pub mod cgroup;
pub mod curl;
pub mod daemon;
pub mod debian;
pub mod disturbed;
pub mod exact;
pub mod files;
pub mod filter;
pub mod holder;
pub mod http;
pub mod link;
pub mod load;
pub mod netns;
pub mod place;
pub mod prometheus;
pub mod promtool;
pub mod random;
pub mod sender;
pub mod session;
pub mod stall;
pub mod states;
pub mod tape;
pub mod trace;
pub mod tunnel;
pub mod types;
pub mod unfinished;
pub mod unit;
pub mod wait;
pub mod watch;
pub mod ways;
pub mod webhook;
