//! A request as the calls see it: ids of the path, parameters of the query, the body.

use std::collections::BTreeSet;
use std::str::FromStr;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::exchange::Received;
use crate::input::{invalid, json_body};
use crate::organization::Moment;
use crate::reply::{Refusal, Reply};

pub(super) struct Request<'a> {
    pub received: &'a Received,
    /// Id of the OAuth client.
    pub client: &'a str,
    pub ids: &'a [&'a str],
    pub moment: Moment,
}

/// Which page of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PageAsked {
    pub size: usize,
    /// From 1.
    pub number: usize,
}

impl Request<'_> {
    /// What the path names first; every template that asks has it.
    pub(super) fn id(&self) -> &str {
        self.ids.first().copied().unwrap_or_default()
    }

    /// # Errors
    /// 415 or 400.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        json_body(&self.received.headers, &self.received.body)
    }

    /// A parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.given(name).next()
    }

    /// All values of a list: the SDK for JavaScript repeats the parameter, the one for Python puts
    /// commas between.
    pub(super) fn list(&self, name: &str) -> BTreeSet<String> {
        self.given(name).flat_map(|given| given.split(',').map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn given(&self, name: &str) -> impl Iterator<Item = String> {
        let query = self.received.query.as_deref().unwrap_or_default();
        let given = form_urlencoded::parse(query.as_bytes());
        given.filter(move |(held, _)| held == name).map(|(_, value)| value.into_owned())
    }

    /// # Errors
    /// 400 where the parameter is missing or empty.
    pub(super) fn required_query(&self, name: &str) -> Result<String, Refusal> {
        self.query(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            let message = format!("The query parameter {name} is required");
            Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message).with_detail("required", name)
        })
    }

    /// # Errors
    /// 400 for anything but a value of that kind.
    pub(super) fn query_as<T: FromStr>(&self, name: &str, default: T) -> Result<T, Refusal> {
        match self.query(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| invalid(format!("{name} {text:?} is no value for it"))),
        }
    }

    /// # Errors
    /// 400 for no page, or a larger one than the list has.
    pub(super) fn page(&self, default_size: usize, max_size: usize) -> Result<PageAsked, Refusal> {
        let asked = PageAsked {
            size: self.query_as("pageSize", default_size)?,
            number: self.query_as("pageNumber", 1)?,
        };
        if !(1..=max_size).contains(&asked.size) {
            return Err(invalid(format!("pageSize {} must be 1 to {max_size}", asked.size)));
        }
        if asked.number == 0 {
            return Err(invalid("pageNumber must be at least 1"));
        }
        Ok(asked)
    }

    /// The page's items in the envelope every list of entities has.
    pub(super) fn listing(&self, page: PageAsked, entities: Vec<Value>) -> Reply {
        let (size, total, path) = (page.size, entities.len(), &self.received.path);
        let pages = total.div_ceil(size);
        let uri = |number: usize| format!("{path}?pageSize={size}&pageNumber={number}");
        let shown: Vec<Value> =
            entities.into_iter().skip((page.number - 1).saturating_mul(size)).take(size).collect();
        let mut body = json!({
            "entities": shown,
            "pageSize": size,
            "pageNumber": page.number,
            "total": total,
            "pageCount": pages,
            "selfUri": uri(page.number),
            "firstUri": uri(1),
            "lastUri": uri(pages.max(1)),
        });
        if page.number < pages {
            body["nextUri"] = json!(uri(page.number + 1));
        }
        if page.number > 1 {
            body["previousUri"] = json!(uri(page.number - 1));
        }
        Reply::json(StatusCode::OK, &body)
    }
}

/// A member without which there is no request.
pub(super) fn missing(field: &str) -> Refusal {
    let message = format!("The required field {field} is missing or is no value for it");
    Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message).with_detail("required", field)
}

/// A member's value that is none of those there are.
pub(super) fn not_one_of(field: &str, value: &str, allowed: &str) -> Refusal {
    invalid(format!("{field} {value:?} must be one of {allowed}")).with_detail("invalid.value", field)
}

/// A reference to another thing of the organisation.
pub(super) fn reference(id: &str, name: Option<&str>, path: &str) -> Value {
    let mut reference = json!({ "id": id, "selfUri": format!("{path}/{id}") });
    if let Some(name) = name {
        reference["name"] = json!(name);
    }
    reference
}
