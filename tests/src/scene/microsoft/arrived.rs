//! What came to the simulator, and what it has to say of those who brought it.

use std::ops::Range;

use anyhow::{Result, ensure};
use mailroute_m365::{Lookup, Message, Statistics, TokenExchange, Violation};

use super::{Microsoft, PATIENCE};

impl Microsoft {
    /// What arrived so far.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn messages(&self) -> Result<Vec<Message>> {
        self.json("messages").await
    }

    /// Waits until at least `count` messages have arrived.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_messages(&self, count: usize) -> Result<()> {
        let seconds = PATIENCE.as_secs();
        // Asked for in slices, as a proxied request may not take too long.
        for _ in 0..seconds.div_ceil(20) {
            let arrived: Vec<Message> = self.json(&format!("messages?wait={count}&timeout=20")).await?;
            if arrived.len() >= count {
                return Ok(());
            }
        }
        anyhow::bail!("{} of {count} messages arrived within {seconds} s", self.messages().await?.len())
    }

    /// Waits until messages whose subjects are exactly these have arrived, in whatever order, each once.
    ///
    /// # Errors
    /// When they do not in time, or another message or a second copy is among them.
    pub async fn wait_for_numbers(&self, numbers: Range<u32>) -> Result<Vec<Message>> {
        self.wait_for_messages(numbers.len()).await?;
        let messages = self.messages().await?;
        let mut arrived: Vec<_> = messages.iter().filter_map(|message| message.header("Subject")).collect();
        arrived.sort_by_key(|subject| subject.parse::<u32>().unwrap_or(u32::MAX));
        let sent: Vec<_> = numbers.map(|number| number.to_string()).collect();
        ensure!(arrived == sent, "sent {sent:?}, arrived {arrived:?}");
        Ok(messages)
    }

    /// What clients did that Exchange would refuse, each a sentence.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn violations(&self) -> Result<Vec<String>> {
        let found: Vec<Violation> = self.json("violations").await?;
        Ok(found.into_iter().map(|violation| violation.detail).collect())
    }

    /// Counters, and what each mailbox had at its peak.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn statistics(&self) -> Result<Statistics> {
        self.json("statistics").await
    }

    /// What the name server was asked.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn lookups(&self) -> Result<Vec<Lookup>> {
        self.json("lookups").await
    }

    /// Who asked for an access token, and what became of it.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn exchanges(&self) -> Result<Vec<TokenExchange>> {
        self.json("tokens").await
    }

    /// How many access tokens were issued.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn tokens_issued(&self) -> Result<usize> {
        let exchanges = self.exchanges().await?;
        Ok(exchanges.iter().filter(|e| e.outcome == "Issued").count())
    }

    /// Forgets the messages of earlier runs.
    ///
    /// # Errors
    /// When the control API cannot be reached.
    pub async fn forget(&self) -> Result<()> {
        self.request("DELETE", "messages", None).await.map(drop)
    }
}
