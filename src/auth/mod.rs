//! Extended authentication (MQTT 5.0 section 4.12): a client shows who it is by an exchange of bytes, before its CONNACK and
//! whenever it likes to do so again.
//!
//! What the bytes mean is a [`Method`]'s business; which packets carry them is the broker's. Nothing here knows packets,
//! sockets or clocks: the time an exchange may take is bounded by the listener's connect timeout, its length by
//! [`STEPS_MAX`]. Without a method, and the `dormouse` binary has none so far, every method is refused.

use std::sync::Arc;

/// A way to show who one is, registered under its name.
pub trait Method: Send + Sync {
    /// The name that clients put into CONNECT, like `SCRAM-SHA-256`.
    fn name(&self) -> &str;

    /// A client begins; what it has sent so far comes with the first step.
    fn begin(&self, claim: &Claim<'_>) -> Box<dyn Exchange>;
}

/// One client's exchange. It is dropped when it has ended, and when the client goes before that.
pub trait Exchange: Send {
    /// Takes the next authentication data of the client, `None` when its packet had none, and answers at once: a
    /// connection's thread waits for it.
    fn step(&mut self, data: Option<&[u8]>) -> Step;
}

/// Who a client says it is. Nothing of it has been checked but the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// As in CONNECT; empty when the broker is to choose one.
    pub client_id: &'a str,
    /// Of CONNECT; `None` when the client authenticates again.
    pub user_name: Option<&'a str>,
    /// Of CONNECT; `None` when the client authenticates again.
    pub password: Option<&'a [u8]>,
    /// The subject common name of its client certificate, if it showed a good one.
    pub certificate_name: Option<&'a str>,
    /// Who it has been since CONNECT, when it authenticates again.
    pub identity: Option<&'a str>,
}

/// Where an exchange stands after the client's last data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The client is asked for more. At most 65,535 bytes.
    Continue(Vec<u8>),
    /// It is who it says it is.
    Success {
        /// A name for it, for the log. Whoever authenticates again has to come out as the same.
        identity: Option<Arc<str>>,
        /// The last word of the method, at most 65,535 bytes.
        data: Option<Vec<u8>>,
    },
    /// It is not.
    Refused(Refusal),
}

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it showed is wrong.
    Credentials,
    /// It is who it says it is, and may not come in.
    NotAuthorized,
    /// It has been shut out.
    Banned,
    /// It cannot be told now; the client may try later.
    Busy,
    /// The exchange broke the method's rules.
    Malformed,
}

/// The methods that are served.
#[derive(Clone, Default)]
pub struct Methods(Vec<Arc<dyn Method>>);

/// An exchange under way, held to its bounds.
pub struct Dialogue {
    exchange: Box<dyn Exchange>,
    steps: u32,
}

/// Steps of one exchange. SCRAM takes two, Kerberos three.
pub const STEPS_MAX: u32 = 16;
/// What an authentication data property can carry (section 1.5.6).
const DATA_BYTES_MAX: usize = 65_535;

impl Methods {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, method: impl Method + 'static) -> Self {
        self.0.retain(|other| other.name() != method.name());
        self.0.push(Arc::new(method));
        self
    }

    /// Begins an exchange by the method of this name, if there is one.
    pub fn begin(&self, name: &str, claim: &Claim<'_>) -> Option<Dialogue> {
        let method = self.0.iter().find(|method| method.name() == name)?;
        Some(Dialogue { exchange: method.begin(claim), steps: 0 })
    }
}

impl Dialogue {
    /// The next step. After another answer than `Continue` the dialogue is over.
    pub fn step(&mut self, data: Option<&[u8]>) -> Step {
        self.steps += 1;
        match self.exchange.step(data) {
            Step::Continue(_) if self.steps >= STEPS_MAX => Step::Refused(Refusal::Malformed),
            // A method that says what no packet can carry is broken: nobody gets in by it.
            Step::Continue(data) | Step::Success { data: Some(data), .. } if data.len() > DATA_BYTES_MAX => {
                Step::Refused(Refusal::Busy)
            }
            step => step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Exchange, Method, Methods, Refusal, STEPS_MAX, Step};

    const CLAIM: Claim<'_> =
        Claim { client_id: "c", user_name: None, password: None, certificate_name: None, identity: None };

    /// Asks for ever, with as many bytes as it was sent and one more.
    struct Endless(&'static str);

    impl Method for Endless {
        fn name(&self) -> &str {
            self.0
        }

        fn begin(&self, _: &Claim<'_>) -> Box<dyn Exchange> {
            Box::new(Endless(self.0))
        }
    }

    impl Exchange for Endless {
        fn step(&mut self, data: Option<&[u8]>) -> Step {
            Step::Continue(vec![0; data.map_or(0, <[u8]>::len) + 1])
        }
    }

    #[test]
    fn an_exchange_has_an_end() {
        let methods = Methods::new().with(Endless("a")).with(Endless("b"));
        assert!(methods.begin("c", &CLAIM).is_none());
        let mut dialogue = methods.begin("b", &CLAIM).unwrap();
        for _ in 1..STEPS_MAX {
            assert_eq!(dialogue.step(None), Step::Continue(vec![0]));
        }
        assert_eq!(dialogue.step(None), Step::Refused(Refusal::Malformed));
    }

    #[test]
    fn what_no_packet_can_carry_is_refused() {
        let mut dialogue = Methods::new().with(Endless("a")).begin("a", &CLAIM).unwrap();
        assert_eq!(dialogue.step(Some(&vec![0; 65_534])), Step::Continue(vec![0; 65_535]));
        assert_eq!(dialogue.step(Some(&vec![0; 65_535])), Step::Refused(Refusal::Busy));
    }
}
