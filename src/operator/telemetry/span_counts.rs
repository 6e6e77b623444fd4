//! Counts spans around the SDK's `BatchSpanProcessor`, which drops spans when its queue is full but does not expose how many.

use std::{
    sync::{
        Arc,
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
use prometheus_client::metrics::counter::Counter;

/// About two megabytes.
const MAX_QUEUED_SPANS: usize = 2048;

/// What happened to spans.
#[derive(Clone, Debug, Default)]
pub(in crate::operator) struct SpanCounters {
    pub(in crate::operator) exported: Counter,
    pub(in crate::operator) failed: Counter,
    pub(in crate::operator) dropped: Counter,
}

/// Exports spans in batches, counted by `counters`. Never blocks the code that ends a span.
pub(super) fn counting_processor(
    exporter: impl SpanExporter + 'static,
    counters: SpanCounters,
) -> impl SpanProcessor + 'static {
    let queued = Arc::new(AtomicUsize::new(0));
    let exporter = CountingExporter { exporter, counters: counters.clone(), queued: Arc::clone(&queued) };
    let batches = BatchSpanProcessor::builder(exporter)
        .with_batch_config(BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUED_SPANS).build())
        .build();
    CountingProcessor { batches, dropped: counters.dropped, queued }
}

#[derive(Debug)]
struct CountingProcessor {
    batches: BatchSpanProcessor,
    dropped: Counter,
    queued: Arc<AtomicUsize>,
}

impl SpanProcessor for CountingProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // The SDK does not export spans that are not sampled.
        if !span.span_context.is_sampled() {
            return;
        }
        let increment = |queued| (queued < MAX_QUEUED_SPANS).then_some(queued + 1);
        if self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, increment).is_ok() {
            self.batches.on_end(span);
        } else {
            self.dropped.inc();
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
struct CountingExporter<E> {
    exporter: E,
    counters: SpanCounters,
    queued: Arc<AtomicUsize>,
}

impl<E: SpanExporter> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        let counter = if result.is_ok() { &self.counters.exported } else { &self.counters.failed };
        counter.inc_by(spans as u64);
        result
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

    /// Reports each batch, then waits for a release, or until the test drops its end.
    #[derive(Debug)]
    struct BlockingExporter {
        received: Mutex<Sender<usize>>,
        released: Mutex<Receiver<()>>,
    }

    impl SpanExporter for BlockingExporter {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.received.lock().unwrap().send(batch.len()).unwrap();
            let _ = self.released.lock().unwrap().recv();
            Ok(())
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_dropped_at_once_and_counted() {
        let counters = SpanCounters::default();
        let ((sender, received), (release, released)) = (channel(), channel());
        let exporter = BlockingExporter { received: Mutex::new(sender), released: Mutex::new(released) };
        let processor = counting_processor(exporter, counters.clone());
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("test");
        let end_spans = |count: usize| (0..count).for_each(|_| drop(tracer.start("a call")));

        // One full batch, so that the exporter blocks and the queue is empty.
        end_spans(512);
        let mut exporting = 0;
        while exporting < 512 {
            exporting += received.recv_timeout(Duration::from_secs(30)).expect("a full batch is exported at once");
            if exporting < 512 {
                release.send(()).unwrap();
            }
        }
        end_spans(MAX_QUEUED_SPANS + 10);
        assert_eq!(counters.dropped.get(), 10, "and on_end has not blocked");
        drop(release);
        provider.shutdown().unwrap();
        let all_others = 512 + MAX_QUEUED_SPANS as u64;
        assert_eq!((counters.exported.get(), counters.failed.get()), (all_others, 0), "all others are exported");
    }
}
