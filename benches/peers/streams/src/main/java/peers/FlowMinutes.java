package peers;

import java.time.Duration;
import java.time.Instant;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;

/**
 * Flows' minutes from events keyed by conversation, each once it is over. Events that come twice
 * count twice here: dropping them would take another store.
 */
final class FlowMinutes {
    private FlowMinutes() {}

    static void build(StreamsBuilder builder, String input, String output) {
        TimeWindows minutes = TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofMinutes(2));
        builder.stream(input, Consumed.with(Serdes.String(), Json.serde(Event.class)).withTimestampExtractor(new ByEvent()))
            .filter((conversation, event) -> "flow.end".equals(event.eventType))
            .groupBy(
                (conversation, event) -> event.flowId + "/" + event.flowVersion,
                Grouped.with("flow", Serdes.String(), Json.serde(Event.class)))
            .windowedBy(minutes)
            .aggregate(Minute::new, (flow, event, minute) -> minute.add(event),
                Materialized.with(Serdes.String(), Json.serde(Minute.class)))
            .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
            .toStream()
            .map((window, minute) -> {
                minute.minuteStart = Instant.ofEpochMilli(window.window().start()).toString();
                return KeyValue.pair(window.key(), minute);
            })
            .to(output, Produced.with(Serdes.String(), Json.serde(Minute.class)));
    }

    /** The time the event says. */
    static final class ByEvent implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return Instant.parse(((Event) record.value()).occurredAt).toEpochMilli();
        }
    }

    static final class Event {
        public String eventId, eventType, occurredAt, conversationId, flowId, flowVersion, outcome;
        public Detail detail;
    }

    static final class Detail {
        public String exitReason, flowType;
    }

    static final class Minute {
        public String minuteStart, flowId, flowVersion;
        public long total, errors;

        Minute add(Event event) {
            flowId = event.flowId;
            flowVersion = event.flowVersion;
            total++;
            if ("error".equals(event.outcome)) {
                errors++;
            }
            return this;
        }
    }
}
