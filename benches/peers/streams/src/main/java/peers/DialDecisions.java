package peers;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.List;
import java.util.UUID;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.FixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyProcessorContext;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * One dial decision per campaign statistic, over the last ten samples. With an aggregation and
 * caches on, Streams would give one per campaign and commit: a processor gives every one.
 */
final class DialDecisions {
    private static final String STORE = "windows";
    private static final int SAMPLES = 10;
    private static final double TARGET = 0.85;
    private static final long TICK_SECONDS = 30;

    private DialDecisions() {}

    static void build(StreamsBuilder builder, String input, String output) {
        Serde<State> state = Json.serde(State.class);
        builder.addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), state).withCachingEnabled());
        builder.stream(input, Consumed.with(Serdes.String(), Json.serde(Statistics.class)))
            .processValues(Decide::new, STORE)
            .to(output, Produced.with(Serdes.String(), Json.serde(Decision.class)));
    }

    private static final class Decide implements FixedKeyProcessor<String, Statistics, Decision> {
        private FixedKeyProcessorContext<String, Decision> context;
        private KeyValueStore<String, State> store;

        @Override
        public void init(FixedKeyProcessorContext<String, Decision> context) {
            this.context = context;
            this.store = context.getStateStore(STORE);
        }

        @Override
        public void process(FixedKeyRecord<String, Statistics> record) {
            Statistics statistics = record.value();
            State state = store.get(record.key());
            if (state == null) {
                state = new State();
            }
            if (state.observedAt != null && statistics.observedAt.compareTo(state.observedAt) <= 0) {
                return;
            }
            Window window = state.take(statistics);
            store.put(record.key(), state);
            context.forward(record.withValue(decide(record.key(), state.sequence, window)));
        }
    }

    private static Decision decide(String key, long sequence, Window window) {
        double wanted = window.meanAnswerRate > 0 ? window.dialRate * TARGET / window.meanAnswerRate : window.minDialRate;
        double rate = Math.round(Math.max(window.minDialRate, Math.min(window.maxDialRate, wanted)) * 100) / 100.0;
        Instant observedAt = Instant.parse(window.observedAt);
        Decision decision = new Decision();
        decision.decisionId =
            UUID.nameUUIDFromBytes((key + "/" + sequence).getBytes(StandardCharsets.UTF_8)).toString();
        decision.sequence = sequence;
        decision.key = key;
        decision.decidedAt = Instant.now().truncatedTo(ChronoUnit.MILLIS).toString();
        decision.eventTime = window.observedAt;
        decision.action = rate == window.dialRate ? "hold" : "set_dial_rate";
        decision.reason = "towards_target";
        decision.parameters = new Parameters();
        decision.parameters.previousDialRate = window.dialRate;
        decision.parameters.dialRate = rate;
        decision.inputs = window;
        decision.expiresAt = observedAt.plusSeconds(2 * TICK_SECONDS).toString();
        return decision;
    }

    static final class Statistics {
        public String campaignId, organizationId, region, observedAt, revision;
        public double answerRate, dialRate, minDialRate, maxDialRate;
        public long attempts, answers, abandoned, callsDelivered;
        public int agentsIdle, agentsBusy;
    }

    static final class State {
        public String observedAt;
        public long sequence, attempts, answers, abandoned, delivered;
        public List<String> times = new ArrayList<>();
        public List<Double> rates = new ArrayList<>();

        Window take(Statistics statistics) {
            if (times.size() == SAMPLES) {
                times.remove(0);
                rates.remove(0);
            }
            times.add(statistics.observedAt);
            rates.add(statistics.answerRate);
            Window window = new Window();
            window.campaignId = statistics.campaignId;
            window.organizationId = statistics.organizationId;
            window.region = statistics.region;
            window.firstObservedAt = times.get(0);
            window.observedAt = statistics.observedAt;
            window.answerRates = List.copyOf(rates);
            window.meanAnswerRate = rates.stream().mapToDouble(Double::doubleValue).average().orElse(0);
            window.attempted = statistics.attempts - attempts;
            window.answered = statistics.answers - answers;
            window.abandoned = statistics.abandoned - abandoned;
            window.delivered = statistics.callsDelivered - delivered;
            window.agentsIdle = statistics.agentsIdle;
            window.agentsBusy = statistics.agentsBusy;
            window.dialRate = statistics.dialRate;
            window.minDialRate = statistics.minDialRate;
            window.maxDialRate = statistics.maxDialRate;
            window.revision = statistics.revision;
            observedAt = statistics.observedAt;
            attempts = statistics.attempts;
            answers = statistics.answers;
            abandoned = statistics.abandoned;
            delivered = statistics.callsDelivered;
            sequence++;
            return window;
        }
    }

    static final class Window {
        public String campaignId, organizationId, region, firstObservedAt, observedAt, revision;
        public List<Double> answerRates;
        public double meanAnswerRate, dialRate, minDialRate, maxDialRate;
        public long attempted, answered, abandoned, delivered;
        public int agentsIdle, agentsBusy;
    }

    static final class Parameters {
        public double previousDialRate, dialRate;
    }

    static final class Decision {
        public String decisionId, key, decidedAt, eventTime, action, reason, expiresAt;
        public long sequence;
        public Parameters parameters;
        public Window inputs;
    }
}
