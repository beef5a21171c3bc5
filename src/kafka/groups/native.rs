//! librdkafka's admin requests about groups, each pointer owned by one value.
#![expect(unsafe_code, reason = "rdkafka has no interface for this")]

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;
use std::{ptr, slice};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;
use sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as NO_ERROR;

use super::{Edge, EdgeOffset, Kind, Listed, Membership, TopicPartition};

/// What is asked of one group.
#[derive(Clone, Copy)]
pub(super) enum Operation {
    Describe,
    Committed,
}

/// What is asked.
pub(super) enum Request<'r> {
    ListGroups,
    /// The answer carries `index`.
    Group {
        operation: Operation,
        group: CString,
        index: usize,
    },
    /// The answer carries the edge.
    Offsets {
        partitions: &'r [TopicPartition],
        edge: Edge,
    },
    /// The answer carries no edge: [`TOPICS`].
    Topics(&'r [&'r str]),
}

/// What an answer about topics carries.
pub(super) const TOPICS: usize = usize::MAX;

/// Where answers come in.
pub(super) struct Queue {
    native: *mut sys::rd_kafka_queue_t,
    client: *mut sys::rd_kafka_t,
}

// SAFETY: librdkafka's clients and queues may be used from any thread.
unsafe impl Send for Queue {}

impl Queue {
    /// The queue must be dropped before its client: `Groups` sees to it.
    pub(super) fn new<C: ClientContext>(client: &Client<C>) -> Self {
        let client = client.native_ptr();
        // SAFETY: the client is borrowed, so the pointer is valid now, and as long as its owner
        // keeps to the rule above.
        Self { native: unsafe { sys::rd_kafka_queue_new(client) }, client }
    }

    /// Sends a request; the answer comes to this queue, within `timeout` or as an error.
    pub(super) fn send(&self, request: Request<'_>, timeout: Duration) -> Result<(), String> {
        use sys::rd_kafka_admin_op_t as Op;
        let operation = match &request {
            Request::ListGroups => Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS,
            Request::Group { operation: Operation::Describe, .. } => {
                Op::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS
            }
            Request::Group { operation: Operation::Committed, .. } => {
                Op::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS
            }
            Request::Offsets { .. } => Op::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            Request::Topics(_) => Op::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        };
        let options = Options::new(self.client, operation, timeout)?;
        // SAFETY, for all five: client, options and queue are valid; librdkafka copies what
        // else it is given before it returns.
        match request {
            Request::ListGroups => unsafe {
                sys::rd_kafka_ListConsumerGroups(self.client, options.native, self.native);
            },
            Request::Group { operation: Operation::Describe, group, index } => {
                options.carry(index);
                let mut names = [group.as_ptr()];
                unsafe {
                    sys::rd_kafka_DescribeConsumerGroups(
                        self.client,
                        names.as_mut_ptr(),
                        names.len(),
                        options.native,
                        self.native,
                    );
                }
            }
            Request::Group { operation: Operation::Committed, group, index } => {
                options.carry(index);
                unsafe {
                    // No partitions named: all that were ever committed.
                    let mut of = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
                    sys::rd_kafka_ListConsumerGroupOffsets(
                        self.client,
                        &raw mut of,
                        1,
                        options.native,
                        self.native,
                    );
                    sys::rd_kafka_ListConsumerGroupOffsets_destroy(of);
                }
            }
            Request::Offsets { partitions, edge } => {
                if edge != Edge::High {
                    options.read_committed()?;
                }
                options.carry(edge as usize);
                let list = PartitionList::new(partitions, edge)?;
                unsafe {
                    sys::rd_kafka_ListOffsets(self.client, list.native, options.native, self.native);
                }
            }
            Request::Topics(topics) => {
                options.carry(TOPICS);
                let names: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
                let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
                unsafe {
                    let topics =
                        sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
                    sys::rd_kafka_DescribeTopics(self.client, topics, options.native, self.native);
                    sys::rd_kafka_TopicCollection_destroy(topics);
                }
            }
        }
        Ok(())
    }

    /// The next answer.
    pub(super) fn wait(&self, timeout: Duration) -> Option<Event> {
        let timeout_ms = timeout.as_millis().try_into().unwrap_or(i32::MAX);
        // SAFETY: the queue is valid; an event that comes back is ours to destroy.
        let native = unsafe { sys::rd_kafka_queue_poll(self.native, timeout_ms) };
        (!native.is_null()).then_some(Event { native })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once. Answers still to come are dropped with it.
        unsafe { sys::rd_kafka_queue_destroy(self.native) }
    }
}

struct Options {
    native: *mut sys::rd_kafka_AdminOptions_t,
}

impl Options {
    fn new(
        client: *mut sys::rd_kafka_t,
        operation: sys::rd_kafka_admin_op_t,
        timeout: Duration,
    ) -> Result<Self, String> {
        // SAFETY: the client is valid.
        let options = Self { native: unsafe { sys::rd_kafka_AdminOptions_new(client, operation) } };
        let timeout_ms = timeout.as_millis().clamp(1, 3_600_000) as i32;
        let mut text = [0 as c_char; 256];
        // SAFETY: the options are valid, and the text has the length it is said to have.
        let error = unsafe {
            sys::rd_kafka_AdminOptions_set_request_timeout(
                options.native,
                timeout_ms,
                text.as_mut_ptr(),
                text.len(),
            )
        };
        if error == NO_ERROR { Ok(options) } else { Err(RDKafkaErrorCode::from(error).to_string()) }
    }

    /// The answer carries this number.
    fn carry(&self, index: usize) {
        // SAFETY: the options are valid; the number is never used as a pointer.
        unsafe {
            sys::rd_kafka_AdminOptions_set_opaque(self.native, ptr::without_provenance_mut(index));
        }
    }

    fn read_committed(&self) -> Result<(), String> {
        let level = sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED;
        // SAFETY: the options are valid; an error that comes back is ours to destroy.
        unsafe {
            let error = sys::rd_kafka_AdminOptions_set_isolation_level(self.native, level);
            if error.is_null() {
                return Ok(());
            }
            let told = text(sys::rd_kafka_error_string(error));
            sys::rd_kafka_error_destroy(error);
            Err(told)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; requests hold a copy.
        unsafe { sys::rd_kafka_AdminOptions_destroy(self.native) }
    }
}

struct PartitionList {
    native: *mut sys::rd_kafka_topic_partition_list_t,
}

impl PartitionList {
    fn new(partitions: &[TopicPartition], edge: Edge) -> Result<Self, String> {
        use sys::rd_kafka_OffsetSpec_t as Spec;
        let offset = match edge {
            Edge::Start => Spec::RD_KAFKA_OFFSET_SPEC_EARLIEST,
            Edge::Stable | Edge::High => Spec::RD_KAFKA_OFFSET_SPEC_LATEST,
        } as i64;
        let capacity = i32::try_from(partitions.len()).map_err(|_| "too many partitions".to_owned())?;
        // SAFETY: the list is valid until it is dropped, and names are copied into it.
        let list = Self { native: unsafe { sys::rd_kafka_topic_partition_list_new(capacity) } };
        for (topic, partition) in partitions {
            let topic = CString::new(topic.as_str()).map_err(|_| "a topic's name holds a NUL".to_owned())?;
            unsafe {
                let added = sys::rd_kafka_topic_partition_list_add(list.native, topic.as_ptr(), *partition);
                (*added).offset = offset;
            }
        }
        Ok(list)
    }
}

impl Drop for PartitionList {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once.
        unsafe { sys::rd_kafka_topic_partition_list_destroy(self.native) }
    }
}

/// An answer. What it points to lives as long as it does.
pub(super) struct Event {
    native: *mut sys::rd_kafka_event_t,
}

impl Event {
    /// The number that the request carried.
    pub(super) fn index(&self) -> usize {
        // SAFETY: the event is valid.
        unsafe { sys::rd_kafka_event_opaque(self.native) }.addr()
    }

    pub(super) fn listed(&self) -> Result<Vec<Listed>, String> {
        self.succeeded()?;
        // SAFETY, here and below: results and their parts belong to the event; arrays have the
        // length that is returned with them.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroups_result(self.native);
            if result.is_null() {
                return Err(UNEXPECTED.to_owned());
            }
            let mut count = 0;
            let errors = sys::rd_kafka_ListConsumerGroups_result_errors(result, &raw mut count);
            if let Some(error) = array(errors, count).first() {
                return Err(text(sys::rd_kafka_error_string(*error)));
            }
            let valid = sys::rd_kafka_ListConsumerGroups_result_valid(result, &raw mut count);
            Ok(array(valid, count)
                .iter()
                .map(|group| Listed {
                    name: text(sys::rd_kafka_ConsumerGroupListing_group_id(*group)),
                    empty: sys::rd_kafka_ConsumerGroupListing_state(*group)
                        == sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY,
                    kind: kind(sys::rd_kafka_ConsumerGroupListing_type(*group)),
                })
                .collect())
        }
    }

    pub(super) fn membership(&self) -> Result<Membership, String> {
        self.succeeded()?;
        // SAFETY: as above.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(self.native);
            if result.is_null() {
                return Err(UNEXPECTED.to_owned());
            }
            let mut count = 0;
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let Some(group) = array(groups, count).first().copied() else {
                return Err(UNEXPECTED.to_owned());
            };
            told(sys::rd_kafka_ConsumerGroupDescription_error(group))?;
            let members = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
            let mut assigned = Vec::new();
            for index in 0..members {
                let member = sys::rd_kafka_ConsumerGroupDescription_member(group, index);
                // What it reads, and what it is about to: the brokers hand partitions over.
                for assignment in [
                    sys::rd_kafka_MemberDescription_assignment(member),
                    sys::rd_kafka_MemberDescription_target_assignment(member),
                ] {
                    if !assignment.is_null() {
                        let list = sys::rd_kafka_MemberAssignment_partitions(assignment);
                        assigned
                            .extend(elements(list).iter().map(|place| (text(place.topic), place.partition)));
                    }
                }
            }
            let settled = sys::rd_kafka_ConsumerGroupDescription_state(group)
                == sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE;
            Ok(Membership { members: u32::try_from(members).unwrap_or(u32::MAX), assigned, settled })
        }
    }

    pub(super) fn committed(&self) -> Result<Vec<(TopicPartition, i64)>, String> {
        self.succeeded()?;
        // SAFETY: as above.
        unsafe {
            let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(self.native);
            if result.is_null() {
                return Err(UNEXPECTED.to_owned());
            }
            let mut count = 0;
            let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &raw mut count);
            let Some(group) = array(groups, count).first().copied() else {
                return Err(UNEXPECTED.to_owned());
            };
            told(sys::rd_kafka_group_result_error(group))?;
            Ok(elements(sys::rd_kafka_group_result_partitions(group))
                .iter()
                .filter(|place| place.err == NO_ERROR && place.offset >= 0)
                .map(|place| ((text(place.topic), place.partition), place.offset))
                .collect())
        }
    }

    pub(super) fn offsets(&self) -> Result<Vec<(TopicPartition, EdgeOffset)>, String> {
        self.succeeded()?;
        // SAFETY: as above.
        unsafe {
            let result = sys::rd_kafka_event_ListOffsets_result(self.native);
            if result.is_null() {
                return Err(UNEXPECTED.to_owned());
            }
            let mut count = 0;
            let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            let places = array(infos, count).iter().map(|info| {
                let place = sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info);
                &*place
            });
            Ok(places
                .filter_map(|place| {
                    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
                    let offset = match RDKafkaErrorCode::from(place.err) {
                        RDKafkaErrorCode::NoError => Ok(place.offset),
                        UnknownTopicOrPartition | UnknownTopic | UnknownPartition => return None,
                        other => Err(other.to_string()),
                    };
                    Some(((text(place.topic), place.partition), offset))
                })
                .collect())
        }
    }

    /// Identities of topics, of those that have one.
    pub(super) fn topic_ids(&self) -> Result<Vec<(String, String)>, String> {
        self.succeeded()?;
        // SAFETY: as above.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(self.native);
            if result.is_null() {
                return Err(UNEXPECTED.to_owned());
            }
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            Ok(array(topics, count)
                .iter()
                .filter(|topic| told(sys::rd_kafka_TopicDescription_error(**topic)).is_ok())
                .filter_map(|topic| {
                    let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
                    // Brokers before 2.8 know none.
                    let none = sys::rd_kafka_Uuid_most_significant_bits(id) == 0
                        && sys::rd_kafka_Uuid_least_significant_bits(id) == 0;
                    let name = text(sys::rd_kafka_TopicDescription_name(*topic));
                    (!none).then(|| (name, text(sys::rd_kafka_Uuid_base64str(id))))
                })
                .collect())
        }
    }

    fn succeeded(&self) -> Result<(), String> {
        // SAFETY: the event is valid, and so is its text as long.
        unsafe {
            match sys::rd_kafka_event_error(self.native) {
                NO_ERROR => Ok(()),
                error => {
                    let told = text(sys::rd_kafka_event_error_string(self.native));
                    Err(if told.is_empty() { RDKafkaErrorCode::from(error).to_string() } else { told })
                }
            }
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: came from a poll and is destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.native) }
    }
}

fn kind(native: sys::rd_kafka_consumer_group_type_t) -> Option<Kind> {
    match native {
        sys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CLASSIC => Some(Kind::Classic),
        sys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER => Some(Kind::Consumer),
        _ => None,
    }
}

/// All groups of all kinds, and the protocol of those that are classic ones. Blocks.
///
/// The only request of librdkafka's that does not leave out groups it has no use for.
pub(super) fn all_groups<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Result<Vec<(String, String)>, String> {
    let timeout_ms = timeout.as_millis().try_into().unwrap_or(i32::MAX);
    let mut list = ptr::null();
    // SAFETY: the client is borrowed; the list is ours until it is destroyed, its groups have
    // the length that stands beside them, and nothing that points into it leaves.
    unsafe {
        match sys::rd_kafka_list_groups(client.native_ptr(), ptr::null(), &raw mut list, timeout_ms) {
            NO_ERROR => {}
            error => {
                // A part of it may be there, which is as good as nothing.
                if !list.is_null() {
                    sys::rd_kafka_group_list_destroy(list);
                }
                return Err(RDKafkaErrorCode::from(error).to_string());
            }
        }
        let Some(held) = list.as_ref() else { return Err(UNEXPECTED.to_owned()) };
        let groups = match held.groups.is_null() || held.group_cnt <= 0 {
            true => &[],
            false => slice::from_raw_parts(held.groups, held.group_cnt as usize),
        };
        let found = groups.iter().map(|group| (text(group.group), text(group.protocol_type))).collect();
        sys::rd_kafka_group_list_destroy(list);
        Ok(found)
    }
}

const UNEXPECTED: &str = "the answer is of another kind than the question";

/// # Safety
/// `error` is null or valid.
unsafe fn told(error: *const sys::rd_kafka_error_t) -> Result<(), String> {
    unsafe {
        if error.is_null() || sys::rd_kafka_error_code(error) == NO_ERROR {
            return Ok(());
        }
        Err(text(sys::rd_kafka_error_string(error)))
    }
}

/// # Safety
/// `text` is null or ends with a zero.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// # Safety
/// `first` is null or stands before `count` pointers that live for 'a.
unsafe fn array<'a, T>(first: *mut *const T, count: usize) -> &'a [*const T] {
    if first.is_null() || count == 0 {
        return &[];
    }
    unsafe { slice::from_raw_parts(first, count) }
}

/// # Safety
/// `list` is null or valid for 'a.
unsafe fn elements<'a>(
    list: *const sys::rd_kafka_topic_partition_list_t,
) -> &'a [sys::rd_kafka_topic_partition_t] {
    unsafe {
        match list.as_ref() {
            Some(list) if list.cnt > 0 => slice::from_raw_parts(list.elems, list.cnt as usize),
            _ => &[],
        }
    }
}
