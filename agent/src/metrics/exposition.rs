//! Writes a view as Prometheus' text format.

use prometheus::{TextEncoder, core::Collector as _, process_collector::ProcessCollector, proto};
use rustix::time::ClockId;
use thiserror::Error;

use super::{
    families::families,
    family::{Family, Kind, Sample, Value},
};
use crate::{clock, view::View};

/// Makes the text of /metrics.
pub struct Exposition {
    process: ProcessCollector,
}

/// The text could not be made.
#[derive(Debug, Error)]
#[error("the metrics cannot be written")]
pub struct ExpositionError(#[from] prometheus::Error);

impl Default for Exposition {
    fn default() -> Self {
        Self {
            process: ProcessCollector::for_self(),
        }
    }
}

impl Exposition {
    /// The `Content-Type` of the text.
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

    /// The text of all families, sorted by name, and of this process's own.
    ///
    /// # Errors
    ///
    /// Where the encoder refuses a family, which a test rules out.
    pub fn render(&self, view: &View) -> Result<String, ExpositionError> {
        let mut families: Vec<_> = families()
            .map(|family| encode(family, view))
            .chain(self.process.collect().into_iter().map(precise))
            // The text format has no place for a family without samples.
            .filter(|family| !family.get_metric().is_empty())
            .collect();
        families.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(TextEncoder::new().encode_to_string(&families)?)
    }
}

/// The collector tells whole seconds of processor time alone, of which an agent that takes a
/// hundredth of a core has one in two minutes.
fn precise(mut family: proto::MetricFamily) -> proto::MetricFamily {
    if family.name() == "process_cpu_seconds_total" {
        let mut counter = proto::Counter::default();
        counter.set_value(clock::read(ClockId::ProcessCPUTime).as_secs_f64());
        let mut metric = proto::Metric::from_label(Vec::new());
        metric.set_counter(counter);
        family.set_metric(vec![metric]);
    }
    family
}

fn encode(family: &Family, view: &View) -> proto::MetricFamily {
    let metrics = (family.samples)(view)
        .into_iter()
        .map(|sample| metric(family, sample))
        .collect();
    let mut encoded = proto::MetricFamily::default();
    encoded.set_name(family.name.to_owned());
    encoded.set_help(family.help.to_owned());
    encoded.set_field_type(match family.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    encoded.set_metric(metrics);
    encoded
}

fn metric(family: &Family, sample: Sample) -> proto::Metric {
    let labels = family
        .labels
        .iter()
        .zip(sample.labels)
        .map(|(name, value)| {
            let mut label = proto::LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(value);
            label
        });
    let mut metric = proto::Metric::from_label(labels.collect());
    match (sample.value, family.kind) {
        (Value::Number(number), Kind::Counter) => {
            let mut counter = proto::Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
        (Value::Number(number), _) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        }
        (
            Value::Histogram {
                buckets,
                sum,
                count,
            },
            _,
        ) => {
            let mut histogram = proto::Histogram::default();
            histogram.set_sample_count(count);
            histogram.set_sample_sum(sum);
            histogram.set_bucket(
                buckets
                    .into_iter()
                    .map(|(bound, count)| {
                        let mut bucket = proto::Bucket::default();
                        bucket.set_upper_bound(bound);
                        bucket.set_cumulative_count(count);
                        bucket
                    })
                    .collect(),
            );
            metric.set_histogram(histogram);
        }
    }
    metric
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
