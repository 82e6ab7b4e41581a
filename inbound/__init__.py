"""`inbound` receives mail as an MX and routes it by SES receipt rules.

The folders are the stages, in the order a message meets them:

1. `accept`: the listener holds the SMTP session. IP filters answer at connect; each recipient is checked at RCPT against
   the rule set revision pinned at MAIL; DATA streams into the spool; 250 is sent only when envelope and content are on disk.
2. `assess`: the header block becomes a `Message`, the verdicts are formed, the trace headers written.
3. `decide`: the engine walks the pinned rule set and says which step comes next; it performs nothing itself.
4. `deliver`: the worker performs each step, records in the spool how it went, and tells the engine. What fails is deferred,
   and in the end a dead letter that people can see.
5. `operate`: what people run and look at: commands, HTTP, the local AWS of `inbound dev`.

`service` builds every object that touches the outside world and hands it to those who need it. Imports run upstream only:
operate -> service -> deliver -> decide -> assess -> accept; import-linter holds this in the tests.
"""

__version__ = "0.1.0"
