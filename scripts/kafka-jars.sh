#!/usr/bin/env bash
# Fetches Apache Kafka as its published Maven artifacts into .local/kafka-VERSION/libs: a real broker for
# demo, tests and benches without a container engine. Does nothing when they are there. KAFKA_VERSION asks for another.
set -euo pipefail

version=${KAFKA_VERSION:-4.1.1}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || { printf 'kafka-jars: KAFKA_VERSION is no version: %s\n' "$version" >&2; exit 1; }
root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.local/kafka-$version

fail() {
    printf 'kafka-jars: %s\n' "$*" >&2
    exit 1
}

# The folder gets its name only when it is complete, so its presence is proof enough.
[[ -d $target/libs ]] && exit 0

command -v mvn >/dev/null || fail "mvn not found; run: $root/scripts/setup.sh services"

# One lock per user, not per checkout: Maven's cache in the home folder does not stand two writers.
exec 9>"/tmp/trunkline-maven-$UID.lock"
flock -w 600 9 || fail "another run has been fetching Kafka for 10 minutes; end it and try again"
[[ -d $target/libs ]] && exit 0

mkdir -p "$root/.local"
staging=$(mktemp -d "$root/.local/kafka-fetch-XXXXXX")
trap 'rm -rf "$staging"' EXIT
chmod 755 "$staging"

cat >"$staging/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>trunkline.local</groupId>
  <artifactId>kafka-broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>$version</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.24.3</version>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <groupId>org.apache.maven.plugins</groupId>
        <artifactId>maven-dependency-plugin</artifactId>
        <version>3.6.1</version>
      </plugin>
    </plugins>
  </build>
</project>
POM

printf 'Fetching Apache Kafka %s (about 55 MB, once per checkout) …\n' "$version" >&2
# Downloads are retried: a half-minute hiccup of the network should not fail a fresh set-up.
for attempt in 1 2 3; do
    if mvn -B -q -C -f "$staging/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$staging/libs" </dev/null >"$staging/maven.log" 2>&1 9>&-; then
        break
    fi
    if ((attempt == 3)); then
        cat "$staging/maven.log" >&2
        fail "Maven could not fetch Kafka $version (its messages are above); check the network and try again"
    fi
    sleep 3
done
[[ -f $staging/libs/kafka_2.13-$version.jar ]] || fail "Maven succeeded but kafka_2.13-$version.jar is missing in $staging/libs"

rm -f "$staging/maven.log"
mv "$staging" "$target"
