//! connstate: which TCP connections do not finish closing, whose they are, and why.
//!
//! The modules stand in the order in which an event passes through them. [`kernel`] loads the
//! programs and reads their counters, [`census`] counts the sockets there are; [`stream`] drains their ring buffer and [`decode`] makes
//! events of it; [`model`] keeps what is known, and publishes it as a [`view`], which
//! [`metrics`] and [`http`] show. [`engine`] turns that crank, [`run`] and [`check`] are the
//! commands, [`cli`] and [`logging`] what surrounds them.
//!
//! Everything from [`decode`] to [`view`] is plain data in, plain data out, with the clock as an
//! argument.

pub mod kernel;
pub mod census;
pub mod stream;
pub mod decode;
pub mod model;
pub mod view;
pub mod metrics;
pub mod http;
pub mod engine;
pub mod run;
pub mod check;
pub mod cli;
pub mod logging;
