//! What types a key's value is read into.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::kind::Value;
use super::{ApiKey, CampaignEntry, Organization, WatchedCluster, Webhook};

/// The type of a key.
pub(super) trait Setting: Sized {
    /// `None` where the key's kind makes other values: the declaration is wrong then.
    fn of(value: Value) -> Option<Self>;

    /// What a key is that was not given and has no default; `None`: it must be given.
    fn absent() -> Option<Self> {
        None
    }

    /// Stands for what must be given where the command does not need it.
    fn unneeded() -> Option<Self> {
        None
    }
}

impl<T: Setting> Setting for Option<T> {
    fn of(value: Value) -> Option<Self> {
        T::of(value).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Setting for String {
    fn of(value: Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }

    fn unneeded() -> Option<Self> {
        Some(String::new())
    }
}

impl Setting for SecretString {
    fn of(value: Value) -> Option<Self> {
        if let Value::Secret(secret) = value { Some(secret) } else { None }
    }

    fn unneeded() -> Option<Self> {
        Some(SecretString::default())
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Setting for $number {
            fn of(value: Value) -> Option<Self> {
                if let Value::Integer(number) = value { number.try_into().ok() } else { None }
            }
        }
    )*};
}

whole_numbers!(i32, u32, u64, usize);

macro_rules! values {
    ($($Value:ident($type:ty)),*) => {$(
        impl Setting for $type {
            fn of(value: Value) -> Option<Self> {
                if let Value::$Value(value) = value { Some(value) } else { None }
            }
        }
    )*};
}

values!(Number(f64), Duration(Duration), Address(SocketAddr));

macro_rules! lists {
    ($($Value:ident($item:ty)),*) => {$(
        impl Setting for Vec<$item> {
            fn of(value: Value) -> Option<Self> {
                if let Value::$Value(items) = value { Some(items) } else { None }
            }

            fn absent() -> Option<Self> {
                Some(Vec::new())
            }
        }
    )*};
}

lists!(
    List(String),
    ApiKeys(ApiKey),
    Webhooks(Webhook),
    Clusters(WatchedCluster),
    Campaigns(CampaignEntry),
    Organizations(Organization)
);
