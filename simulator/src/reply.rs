//! What the simulated platform answers, and its error bodies (`docs/platform.md`).

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// An answer before transport faults touch it.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Vec<u8>>,
}

impl Reply {
    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        Self {
            status,
            headers: vec![(header::CONTENT_TYPE, json)],
            body: Some(body.to_string().into_bytes()),
        }
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    /// Text that cannot stand in a header is left out.
    pub(crate) fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

/// Something the platform refuses: status, machine-readable code and a sentence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub entity_id: Option<String>,
    /// The message with placeholders, and what stands for each of them.
    pub template: Option<Box<Template>>,
    /// Members of the request it is about: what is wrong, and with which.
    pub details: Vec<(&'static str, String)>,
    /// The limit that was reached, where one was.
    pub limit: Option<Box<Limit>>,
}

/// A message with `{placeholders}`, and what stands for each of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    pub text: String,
    pub params: Vec<(&'static str, String)>,
}

/// A limit of requests: its key, whose it is, and how many requests it allows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub key: &'static str,
    /// `platform.api`, or the family of calls it is for.
    pub namespace: String,
    pub value: u32,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            entity_id: None,
            template: None,
            details: Vec::new(),
            limit: None,
        }
    }

    pub(crate) fn about(mut self, entity_id: &str) -> Self {
        self.entity_id = Some(entity_id.into());
        self
    }

    /// The message as a text with `{placeholders}`, which are put in.
    pub(crate) fn worded(
        status: StatusCode,
        code: &'static str,
        template: &str,
        params: &[(&'static str, &str)],
    ) -> Self {
        let message = params
            .iter()
            .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
        let params = params.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let template = Template { text: template.to_owned(), params };
        Self { template: Some(Box::new(template)), ..Self::new(status, code, message) }
    }

    /// Names the member of the request that is wrong.
    pub(crate) fn with_detail(mut self, error_code: &'static str, field_name: impl Into<String>) -> Self {
        self.details.push((error_code, field_name.into()));
        self
    }

    /// The body every error of the API has; `context_id` is the correlation id.
    pub(crate) fn reply(&self, context_id: &str) -> Reply {
        let detail = |(code, field): &(&str, String)| json!({ "errorCode": code, "fieldName": field });
        let details: Vec<Value> = self.details.iter().map(detail).collect();
        let mut body = json!({
            "message": self.message,
            "code": self.code,
            "status": self.status.as_u16(),
            "messageParams": {},
            "contextId": context_id,
            "details": details,
            "errors": [],
        });
        if let Some(entity_id) = &self.entity_id {
            body["entityId"] = json!(entity_id);
        }
        if let Some(template) = &self.template {
            body["messageWithParams"] = json!(template.text);
            body["messageParams"] =
                template.params.iter().map(|(name, value)| (*name, json!(value))).collect();
        }
        if let Some(Limit { key, namespace, value }) = self.limit.as_deref() {
            body["limit"] = json!({ "key": key, "namespace": namespace, "value": value });
        }
        Reply::json(self.status, &body)
    }
}

/// The refusal the platform words for a bare status; unknown ones get the nearest.
pub(crate) fn refusal_for_status(status: StatusCode) -> Refusal {
    let (code, message) = match status.as_u16() {
        400 => ("bad.request", "The request could not be understood by the server due to malformed syntax."),
        401 => ("bad.credentials", "Invalid login credentials."),
        403 => {
            ("missing.permissions", "Unable to perform the requested action. You must have the permission.")
        }
        404 => ("not.found", "The requested resource was not found."),
        408 | 504 => ("request.timeout", "The request timed out."),
        409 => ("general.conflict", "The resource conflicts with a concurrent change."),
        412 => ("precondition.failed", "The If-Match header does not match the current version."),
        413 => ("request.too.large", "The request body is too large."),
        415 => ("unsupported.media.type", "Unsupported media type."),
        428 => ("precondition.required", "This request must carry an If-Match header."),
        429 => ("too.many.requests", "Rate limit exceeded the maximum."),
        502 | 503 => ("service.unavailable", "The service is temporarily unavailable."),
        500..=599 => ("internal.server.error", "The server encountered an unexpected condition."),
        _ => ("general.error", "The request was not carried out."),
    };
    Refusal::new(status, code, message)
}
