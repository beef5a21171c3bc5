//! Why brokers that are there do not let us in. A failed request only says that there was no connection; the client's
//! events say more, and what is wrong with a certificate only a look at it.

use std::fs::File;
use std::io::BufReader;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::settings::KafkaSettings;

/// How long the client is listened to.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one broker may take for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Why a broker does not let us in, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "its certificate comes from an authority that is not trusted here; let `kafka.ssl.ca.location` name the file with \
         the authority that issued it"
    )]
    Untrusted,
    #[error(
        "its certificate is not for {host}; write the broker in `kafka.brokers` as its certificate names it"
    )]
    OtherHost { host: String },
    #[error("{told}; check `kafka.ssl.ca.location` and `kafka.security.protocol`")]
    Tls { told: String },
    #[error("{told}; check `kafka.sasl.username`, `kafka.sasl.password` and `kafka.sasl.mechanism`")]
    Credentials { told: String },
}

/// What the client has said last that tells why.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Option<Told>>>);

#[derive(Clone)]
enum Told {
    Tls(String),
    Credentials(String),
}

impl ClientContext for Heard {
    fn error(&self, error: KafkaError, reason: &str) {
        let reason = told(reason);
        let heard = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Told::Credentials(reason)
            }
            Some(RDKafkaErrorCode::SSL) => Told::Tls(reason),
            _ if reason.contains("certificate verify failed") => Told::Tls(reason),
            _ => return,
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(heard);
    }
}

impl ConsumerContext for Heard {}

/// A reason without the broker at its head and the state at its end.
fn told(reason: &str) -> String {
    let body = reason.split_once("/bootstrap: ").map_or(reason, |(_, body)| body);
    body.rsplit_once(" (after ").map_or(body, |(body, _)| body).to_owned()
}

/// Connects anew and listens to what comes of it. `None` where nobody refuses anything. Blocks for
/// some seconds.
pub(super) fn find(kafka: &KafkaSettings) -> Option<Refusal> {
    let config = kafka.client("admin");
    let heard = Heard::default();
    let client = BaseConsumer::from_config_and_context(&config, heard.clone()).ok()?;
    let end = Instant::now() + PATIENCE;
    let told = loop {
        // Serves the client's events; it subscribes to nothing, so no record comes.
        drop(client.poll(Duration::from_millis(100)));
        if let Some(told) = heard.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            break told;
        }
        if Instant::now() >= end {
            return None;
        }
        // Makes it connect.
        drop(client.fetch_metadata(None, Duration::from_millis(100)));
    };
    Some(match told {
        Told::Credentials(told) => Refusal::Credentials { told },
        Told::Tls(told) => {
            let authority = config.get("ssl.ca.location").filter(|place| !place.is_empty());
            let looked = authority.and_then(|authority| look_at_certificates(&kafka.brokers, authority));
            looked.unwrap_or(Refusal::Tls { told })
        }
    })
}

/// What is wrong with the first certificate that is not taken.
fn look_at_certificates(brokers: &str, authority: &str) -> Option<Refusal> {
    let mut roots = RootCertStore::empty();
    let file = BufReader::new(File::open(authority).ok()?);
    roots.add_parsable_certificates(CertificateDer::pem_reader_iter(file).filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = Arc::new(versions.with_root_certificates(roots).with_no_client_auth());
    brokers.split(',').find_map(|broker| {
        let (host, port) = broker.trim().rsplit_once(':')?;
        let host = host.trim_matches(['[', ']']);
        match verify(&config, host, port.parse().ok()?)? {
            CertificateError::UnknownIssuer => Some(Refusal::Untrusted),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some(Refusal::OtherHost { host: host.to_owned() })
            }
            other => Some(Refusal::Tls { told: format!("its certificate is not taken: {other}") }),
        }
    })
}

/// Shakes hands with a broker as far as its certificate.
fn verify(config: &Arc<ClientConfig>, host: &str, port: u16) -> Option<CertificateError> {
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).ok()?;
    let mut addresses = (host, port).to_socket_addrs().ok()?;
    let mut stream = addresses.find_map(|address| TcpStream::connect_timeout(&address, HANDSHAKE).ok())?;
    stream.set_read_timeout(Some(HANDSHAKE)).ok()?;
    stream.set_write_timeout(Some(HANDSHAKE)).ok()?;
    let failed = connection.complete_io(&mut stream).err()?;
    match failed.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(why.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_without_place_and_state() {
        let said = "sasl_ssl://127.0.0.1:30998/bootstrap: SASL authentication error: Authentication failed: Invalid \
                    username or password (after 303ms in state AUTH_REQ)";
        assert_eq!(
            told(said),
            "SASL authentication error: Authentication failed: Invalid username or password"
        );
        assert_eq!(told("no"), "no");
    }
}
