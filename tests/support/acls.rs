//! Access control lists of a broker. The `rdkafka` crate has no calls for them, librdkafka does.

use std::ffi::{CString, c_char};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};

use sys::rd_kafka_AclOperation_t as Operation;
use sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
use sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL;
use sys::rd_kafka_ResourceType_t as Resource;

const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;

/// Grants to a user. The first rule of a topic or group takes it from everybody whom none allows.
pub struct Acls<'c> {
    client: &'c ClientConfig,
    user: &'c str,
}

impl<'c> Acls<'c> {
    /// `client`: of somebody who may change them.
    pub fn of(client: &'c ClientConfig, user: &'c str) -> Acls<'c> {
        Acls { client, user }
    }

    pub fn may_read_topic(&self, name: &str) {
        self.allow(Resource::RD_KAFKA_RESOURCE_TOPIC, name, READ);
    }

    pub fn may_describe_topic(&self, name: &str) {
        self.allow(Resource::RD_KAFKA_RESOURCE_TOPIC, name, DESCRIBE);
    }

    pub fn may_read_group(&self, name: &str) {
        self.allow(Resource::RD_KAFKA_RESOURCE_GROUP, name, READ);
    }

    fn allow(&self, resource: Resource, name: &str, operation: Operation) {
        let client: BaseConsumer = self.client.create().unwrap();
        let c = |text: &str| CString::new(text).unwrap();
        let (name, principal, host) = (c(name), c(&format!("User:{}", self.user)), c("*"));
        let mut why = [0 as c_char; 512];
        // SAFETY: the client lives to the end; the texts live through the call that copies them; what librdkafka hands out
        // is destroyed once, and the event is looked into before.
        unsafe {
            let rk = client.client().native_ptr();
            let mut rule = sys::rd_kafka_AclBinding_new(
                resource,
                name.as_ptr(),
                RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                principal.as_ptr(),
                host.as_ptr(),
                operation,
                RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                why.as_mut_ptr(),
                why.len(),
            );
            assert!(!rule.is_null(), "a rule that librdkafka does not take");
            let queue = sys::rd_kafka_queue_new(rk);
            sys::rd_kafka_CreateAcls(rk, &mut rule, 1, std::ptr::null(), queue);
            let within = i32::try_from(Duration::from_secs(30).as_millis()).unwrap();
            let event = sys::rd_kafka_queue_poll(queue, within);
            assert!(!event.is_null(), "no answer to a new rule");
            let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            assert_eq!(sys::rd_kafka_event_error(event), none);
            let result = sys::rd_kafka_event_CreateAcls_result(event);
            let mut count = 0;
            let answers = sys::rd_kafka_CreateAcls_result_acls(result, &mut count);
            assert_eq!(count, 1);
            assert!(sys::rd_kafka_acl_result_error(*answers).is_null(), "the broker refuses the rule");
            sys::rd_kafka_event_destroy(event);
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AclBinding_destroy(rule);
        }
    }
}
