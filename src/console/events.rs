//! `POST /v1/events`: reads the body within limits and hands it to the intake.

use std::future::Future;
use std::pin::Pin;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::HeaderMap;

use super::Shared;
use super::body::{self, Read};
use super::problem::{Kind, Problem};
use super::routes::{Answer, Content, RequestBody};
use crate::model::ingest::{Receipt, Refusal};

/// Brings events to their topic.
pub trait EventIntake: Send + Sync + 'static {
    /// Answers once all replicas have every event that is accepted.
    fn take<'a>(&'a self, headers: &'a HeaderMap, body: Bytes) -> Taking<'a>;

    /// Keeps that there was a body over `limit` bytes, of which this much was `read`, and says
    /// what its sender is told.
    fn refuse_too_large<'a>(&'a self, headers: &'a HeaderMap, read: Bytes, limit: usize) -> Refusing<'a>;
}

/// The answer of [`EventIntake::refuse_too_large`], on its way.
pub type Refusing<'a> = Pin<Box<dyn Future<Output = Refusal> + Send + 'a>>;

/// The answer of [`EventIntake::take`], on its way.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Refusal>> + Send + 'a>>;

pub(super) const BODY: RequestBody = RequestBody {
    description: "EventBridge envelopes: one, an array, or one after another, however they are separated; `detail` is \
                  an object or a list of objects. CloudEvents 1.0 in structured, batch and binary (`ce-*` headers) mode. \
                  Any other application/…+json is read as JSON; `content-encoding: gzip` is taken",
    media_types: &[
        "application/json",
        "application/x-ndjson",
        "application/json-seq",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    ],
    schema: |_| schemars::json_schema!({"type": ["object", "array"]}),
};

pub(super) const ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "All events but those rejected are on their topic",
        content: Content::Json(|generator| generator.subschema_for::<Receipt>()),
    },
    Answer { status: 400, description: "Nothing in the body can be an event", content: Content::Problem },
    Answer { status: 408, description: "The body came too slowly", content: Content::Problem },
    Answer {
        status: 413,
        description: "More bytes or events than one request may bring; a body of too many bytes leaves a dead letter \
                      without a value",
        content: Content::Problem,
    },
    Answer { status: 415, description: "The body is of another type", content: Content::Problem },
    Answer {
        status: 503,
        description: "Too much is under way, or the brokers do not answer; send all events again after `Retry-After`",
        content: Content::Problem,
    },
];

pub(super) async fn take(State(shared): State<Shared>, request: Request) -> Result<Json<Receipt>, Problem> {
    let Some(intake) = &shared.intake else {
        let remedy = "ask another instance, or start this one with the role `ingest`";
        return Err(Problem::new(Kind::Unavailable, "this instance takes no events in", remedy));
    };
    let (head, body) = request.into_parts();
    let limit = shared.events.max_body_bytes;
    match tokio::time::timeout(shared.events.read_timeout, body::read(body, limit)).await {
        Ok(Ok(Read::Whole(body))) => intake.take(&head.headers, body).await.map(Json).map_err(Problem::from),
        Ok(Ok(Read::TooLarge(read))) => Err(intake.refuse_too_large(&head.headers, read, limit).await.into()),
        Ok(Err(error)) => {
            Err(Problem::new(Kind::BadBody, format!("the body broke off: {error}"), "send it again"))
        }
        Err(_) => {
            let detail =
                format!("the body was not complete after {} ms", shared.events.read_timeout.as_millis());
            Err(Problem::new(Kind::BodyTooSlow, detail, "send less at once, or faster"))
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnsupportedMediaType(_) => {
                Problem::new(Kind::UnsupportedMediaType, detail, "send JSON, as it is or with gzip")
            }
            Refusal::Malformed(_) => {
                Problem::new(Kind::BadBody, detail, "see /openapi.json for what is read here")
            }
            Refusal::BodyTooLarge { limit } => Problem::body_too_large(limit),
            Refusal::TooMany { .. } => Problem::new(Kind::BodyTooLarge, detail, "send fewer at once"),
            Refusal::Busy(_) => {
                Problem::new(Kind::Overloaded, detail, "send all events again after `Retry-After` seconds")
            }
            Refusal::NotDelivered(_) => {
                let remedy = "send all events again after `Retry-After` seconds; /readyz says when the brokers are back";
                Problem::new(Kind::Unavailable, detail, remedy)
            }
        }
    }
}
