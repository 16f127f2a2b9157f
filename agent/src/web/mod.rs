//! Serving HTTP to whoever asks, within bounds.
//!
//! [`Config`] is the file of `--web.config.file`: TLS, basic authentication, headers, a rate.
//! [`Live`] reads it again when it changes. [`serve`] accepts connections on a [`Listener`], gives
//! each a place among a bounded number, and calls the routes of a [`Site`] for what they ask;
//! [`Refusals`] counts whom it turned away. [`unix`] makes the listener that only root may
//! connect to.

mod yaml;
mod files;
mod headers;
mod rate;
mod users;
mod sans;
mod client_certificates;
mod suites;
mod tls;
mod config;
mod verified;
mod auth;
mod reload;
mod refusals;
mod places;
mod progress;
mod answer;
mod connection;
mod server;
pub mod unix;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

pub use config::{Config, ConfigError};
pub use places::Bounds;
pub use refusals::{Refusal, RefusalCounts, Refusals};
pub use reload::{Live, LiveError};
pub use server::{Listener, Site, serve};
