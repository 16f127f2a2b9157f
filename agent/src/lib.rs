//! connstate: which TCP connections do not finish closing, whose they are, and why.
//!
//! The modules stand in the order in which an event passes through them. [`kernel`] loads the
//! programs and reads their counters. [`stream`] drains their ring buffer and [`decode`] makes
//! events of it, which a [`feed`] hands on to whoever listens; [`limits`] reads what the kernel
//! allows, and [`census`] finds the sockets there are, and by [`workload`] whose. [`model`] keeps what is known, has the [`detectors`] judge it,
//! bounds its labels in [`series`], and publishes it as a [`view`], which [`metrics`], [`api`],
//! [`http`] and [`snapshot`] show; [`advice`] says what to do about it, and [`words`] how people
//! read it, in [`top`] as it changes. [`web`] is what HTTP is served through, and a [`client`]
//! asks. [`engine`] turns that crank, within what [`confinement`] leaves it; [`run`], [`events`], [`snapshot`] and [`check`] are the
//! commands, [`cli`] and [`logging`] what surrounds them.
//!
//! Everything from [`decode`] to [`view`] but for reading limits and taking the census is plain
//! data in, plain data out, with the clock as an argument.

pub mod kernel;
pub mod stream;
pub mod decode;
pub mod feed;
pub mod limits;
pub mod workload;
mod serial;
pub mod advice;
pub mod census;
pub mod detectors;
pub mod series;
pub mod model;
pub mod view;
pub mod metrics;
pub mod api;
pub mod words;
pub mod top;
pub mod http;
pub mod web;
pub mod engine;
pub mod client;
mod sse;
pub mod confinement;
pub mod run;
pub mod events;
pub mod snapshot;
pub mod check;
pub mod cli;
pub mod clock;
pub mod logging;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
