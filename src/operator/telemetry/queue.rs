//! What waits to be sent: bounded, and counted. A pass never waits for it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::operator::metrics::Metrics;

/// Spans that wait at the most; about two megabytes.
const MOST: usize = 2048;

/// How many wait, and where it is told what becomes of them.
#[derive(Default)]
pub(super) struct Queue {
    waiting: AtomicUsize,
    metrics: OnceLock<Arc<Metrics>>,
}

impl Queue {
    pub(super) fn count_in(&self, metrics: &Arc<Metrics>) {
        let _ = self.metrics.set(Arc::clone(metrics));
    }

    /// Whether there is room for one more, which is taken.
    fn enter(&self) -> bool {
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < MOST).then_some(waiting + 1));
        if entered.is_err() {
            self.count("dropped", 1);
        }
        entered.is_ok()
    }

    fn count(&self, result: &'static str, spans: usize) {
        if let Some(metrics) = self.metrics.get() {
            metrics.spans(result, spans);
        }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Queue").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// Sends spans in batches through this exporter. The SDK's own processor keeps to itself how many it drops, so it is never
/// given more than it can hold.
pub(super) fn bounded(exporter: impl SpanExporter + 'static, queue: &Arc<Queue>) -> impl SpanProcessor + 'static {
    let batches = BatchSpanProcessor::builder(Counted { exporter, queue: Arc::clone(queue) })
        .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(MOST).build())
        .build();
    Bounded { batches, queue: Arc::clone(queue) }
}

#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    queue: Arc<Queue>,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // Those that are not sampled are not sent.
        if span.span_context.is_sampled() && self.queue.enter() {
            self.batches.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    queue: Arc<Queue>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.waiting.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        self.queue.count(if result.is_ok() { "exported" } else { "failed" }, spans);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    };

    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// A collector that says when it is given spans, and takes them when it is told to.
    #[derive(Debug)]
    struct Slow {
        given: Mutex<Sender<usize>>,
        go_on: Mutex<Receiver<()>>,
    }

    impl SpanExporter for Slow {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.given.lock().unwrap().send(batch.len()).unwrap();
            // Whoever has dropped the other end has no more to say: go on.
            let _ = self.go_on.lock().unwrap().recv();
            Ok(())
        }
    }

    fn told(metrics: &Metrics, result: &str) -> usize {
        let line = format!("awsdeploy_trace_spans_total{{result=\"{result}\"}} ");
        metrics.text().lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
    }

    #[test]
    fn spans_beyond_what_may_wait_are_dropped_at_once_and_each_is_counted() {
        let (metrics, queue) = (Arc::new(Metrics::new(false)), Arc::new(Queue::default()));
        queue.count_in(&metrics);
        let ((given, taken), (release, go_on)) = (channel(), channel());
        let slow = Slow { given: Mutex::new(given), go_on: Mutex::new(go_on) };
        let provider = SdkTracerProvider::builder().with_span_processor(bounded(slow, &queue)).build();
        let tracer = provider.tracer("test");
        let spans = |count: usize| (0..count).for_each(|_| drop(tracer.start("a call")));

        // The collector is busy with as many as it was given; none waits.
        spans(512);
        let mut sent = 0;
        while sent < 512 {
            sent += taken.recv_timeout(Duration::from_secs(30)).expect("a full batch is not kept waiting");
            if sent < 512 {
                release.send(()).unwrap();
            }
        }
        spans(MOST + 10);
        assert_eq!(told(&metrics, "dropped"), 10, "and nobody has waited to find that out");
        drop(release);
        provider.shutdown().unwrap();
        assert_eq!((told(&metrics, "exported"), told(&metrics, "failed")), (512 + MOST, 0), "all others arrive");
    }
}
