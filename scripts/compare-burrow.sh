#!/usr/bin/env bash
# Burrow and trunkline side by side on one broker and the same misbehaving consumers: what each said when, as a
# Markdown table on stdout. The broker is a Kafka 3.9: Burrow cannot read what Kafka 4 writes. Needs apt's `burrow`, a
# JVM, Maven (for the jars of Kafka and ZooKeeper) and a debug or release build.
#
#   scripts/compare-burrow.sh [SECONDS]     how long the consumers misbehave, 180 unless told
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-180}
trunkline=${TRUNKLINE:-target/debug/trunkline}
folder=$(mktemp -d -t compare-burrow-XXXXXX)
zookeeper_port=$((20000 + RANDOM % 10000))
burrow_port=$((zookeeper_port + 1))
http_port=$((zookeeper_port + 2))
children=()

say() { printf 'compare-burrow: %s\n' "$*" >&2; }
need() { command -v "$1" >/dev/null || { say "$1 is missing; install it with: $2"; exit 1; }; }

finish() {
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    for child in "${children[@]}"; do wait "$child" 2>/dev/null || true; done
    scripts/services.sh remove "$folder/services" >/dev/null 2>&1 || true
    [ -n "${KEEP:-}" ] || rm -rf "$folder"
}
trap finish EXIT

need Burrow "apt-get install burrow"
need mvn "apt-get install maven"
need kcat "apt-get install kcat"
need python3 "apt-get install python3"
[ -x "$trunkline" ] || { say "$trunkline is missing; build it with: cargo build"; exit 1; }

say "starting Postgres"
eval "$(scripts/services.sh start --owner $$ "$folder/services")"

say "fetching Kafka 3.9 and ZooKeeper, which Burrow wants beside it"
cat >"$folder/pom.xml" <<POM
<project><modelVersion>4.0.0</modelVersion><groupId>compare</groupId><artifactId>burrow</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>3.9.1</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>3.9.1</version></dependency>
<dependency><groupId>org.apache.zookeeper</groupId><artifactId>zookeeper</artifactId><version>3.8.4</version></dependency>
<dependency><groupId>org.xerial.snappy</groupId><artifactId>snappy-java</artifactId><version>1.1.10.5</version></dependency>
<dependency><groupId>io.dropwizard.metrics</groupId><artifactId>metrics-core</artifactId><version>4.1.12.1</version></dependency>
</dependencies></project>
POM
mvn -q -B -f "$folder/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder/jars" >&2

say "starting them"
broker_port=$((zookeeper_port + 3))
controller_port=$((zookeeper_port + 4))
brokers=127.0.0.1:$broker_port
cat >"$folder/server.properties" <<KAFKA
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://$brokers,CONTROLLER://127.0.0.1:$controller_port
log.dirs=$folder/kafka
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
KAFKA
java -cp "$folder/jars/*" kafka.tools.StorageTool format --cluster-id MkU3OEVBNTcwNTJENDM2Qg \
    --config "$folder/server.properties" >"$folder/format.log" 2>&1
java -Xmx512m -cp "$folder/jars/*" kafka.Kafka "$folder/server.properties" >"$folder/kafka.log" 2>&1 &
children+=($!)
for attempt in $(seq 60); do
    kcat -b "$brokers" -L >/dev/null 2>&1 && break
    [ "$attempt" -lt 60 ] || { say "the broker does not start:"; tail -n 20 "$folder/kafka.log" >&2; exit 1; }
    sleep 1
done
cat >"$folder/zoo.cfg" <<ZOO
dataDir=$folder/zookeeper
clientPort=$zookeeper_port
clientPortAddress=127.0.0.1
admin.enableServer=false
ZOO
java -Xmx128m -cp "$folder/jars/*" org.apache.zookeeper.server.quorum.QuorumPeerMain "$folder/zoo.cfg" \
    >"$folder/zookeeper.log" 2>&1 &
children+=($!)

say "starting trunkline's lag watch"
export TRUNKLINE_KAFKA__BROKERS=$brokers
export TRUNKLINE_HTTP__LISTEN=127.0.0.1:$http_port TRUNKLINE_LAG__MODE=live TRUNKLINE_LAG__INCLUDE='c-*'
export TRUNKLINE_GENESYS__BASE_URL=http://127.0.0.1:1 TRUNKLINE_GENESYS__CLIENT_ID=none TRUNKLINE_GENESYS__CLIENT_SECRET=none
export TRUNKLINE_CONFIG=/dev/null
"$trunkline" topics apply >/dev/null
"$trunkline" database migrate >/dev/null
"$trunkline" run --stages lag-poller,lag,lag-status,console >"$folder/trunkline.log" 2>&1 &
children+=($!)

# Consumers by kcat and a small Python driver: no library of ours takes part.
cat >"$folder/drive.py" <<'DRIVE'
"""What each consumer does, in seconds from the start. Prints the behaviours' names."""
import subprocess, sys, time
brokers, seconds = sys.argv[1], int(sys.argv[2])

def kcat(*arguments, text=""):
    subprocess.run(["kcat", "-b", brokers, *arguments], input=text, text=True, check=False,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

def produce(topic, count):
    kcat("-P", "-t", topic, text="".join(f"{n}\n" for n in range(count)))

def consumer(group, topic, *more):
    return subprocess.Popen(
        ["kcat", "-b", brokers, "-G", group, topic, "-X", "auto.offset.reset=earliest",
         "-X", "session.timeout.ms=10000", "-X", "auto.commit.interval.ms=1000", *more],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

healthy, dead, frozen = (consumer(f"c-{name}", f"t-{name}") for name in ("healthy", "dead", "frozen"))
rare = consumer("c-rare", "t-rare")
end = time.time() + seconds
killed = False
second = 0
while time.time() < end:
    for name in ("healthy", "dead", "frozen"):
        produce(f"t-{name}", 5)
    if second % 60 == 0:
        produce("t-rare", 1)
    if second == 30 and not killed:
        # One dies; one is stopped, and its process is still there.
        dead.kill()
        frozen.send_signal(19)
        killed = True
        print(f"{time.time():.0f} misbehaviour begins", flush=True)
    second += 1
    time.sleep(1)
for child in (healthy, frozen, rare):
    child.kill()
DRIVE
for name in healthy dead frozen rare; do
    java -cp "$folder/jars/*" org.apache.kafka.tools.TopicCommand --bootstrap-server "$brokers" \
        --create --topic "t-$name" --partitions 1 --replication-factor 1 >&2
done

cat >"$folder/burrow.toml" <<BURROW
[general]
pidfile = "$folder/burrow.pid"
[logging]
filename = "$folder/burrow.log"
level = "warn"
[zookeeper]
servers = [ "127.0.0.1:$zookeeper_port" ]
timeout = 6
root-path = "/burrow"
[client-profile.own]
client-id = "burrow"
kafka-version = "2.0.0"
[cluster.own]
class-name = "kafka"
servers = [ "$brokers" ]
client-profile = "own"
topic-refresh = 10
offset-refresh = 5
[consumer.own]
class-name = "kafka"
cluster = "own"
servers = [ "$brokers" ]
client-profile = "own"
start-latest = true
[httpserver.default]
address = "127.0.0.1:$burrow_port"
[storage.default]
class-name = "inmemory"
workers = 2
intervals = 15
expire-group = 604800
min-distance = 1
BURROW
sleep 3
Burrow --config-dir "$folder" >"$folder/burrow.out" 2>&1 &
children+=($!)

say "consumers misbehave for $seconds s"
python3 "$folder/drive.py" "$brokers" "$seconds" >"$folder/drive.out" &
driver=$!
children+=("$driver")
while kill -0 "$driver" 2>/dev/null; do
    now=$(date +%s)
    for name in healthy dead frozen rare; do
        b=$(curl -sf -m 2 "http://127.0.0.1:$burrow_port/v3/kafka/own/consumer/c-$name/status" \
            | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"]["status"])' 2>/dev/null || echo -)
        t=$(curl -sf -m 2 "http://127.0.0.1:$http_port/v1/lag/c-$name" \
            | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"])' 2>/dev/null || echo -)
        echo "$now $name $b $t" >>"$folder/seen"
    done
    sleep 2
done

python3 - "$folder/seen" "$folder/drive.out" <<'TABLE'
import sys
from collections import OrderedDict
begun = int(open(sys.argv[2]).read().split()[0])
seen = OrderedDict()
for line in open(sys.argv[1]):
    at, name, burrow, trunkline = line.split()
    for who, status in (("Burrow", burrow), ("trunkline", trunkline)):
        said = seen.setdefault(name, {}).setdefault(who, [])
        if status not in ("-", "NOTFOUND") and (not said or said[-1][1] != status):
            said.append((int(at) - begun, status))
does = {"healthy": "reads and commits all the time", "dead": "killed at 0 s, records go on coming",
        "frozen": "stopped (SIGSTOP) at 0 s, records go on coming", "rare": "one record a minute, read at once"}
print("| consumer | Burrow said | trunkline said |\n|---|---|---|")
for name, by in seen.items():
    cells = [", ".join(f"{status} at {at} s" for at, status in by[who]) or "nothing" for who in ("Burrow", "trunkline")]
    print(f"| {name}: {does[name]} | {cells[0]} | {cells[1]} |")
TABLE
