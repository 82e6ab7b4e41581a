"""Rules that live elsewhere (SES, CloudFormation, Terraform) -> rules.yaml, and back to SES's JSON. Nothing is guessed on the way.

Each source is a module that makes a `Draft`; `writing` makes the YAML of it. Only `live` touches the outside world.
"""
