// A Lambda function for a LambdaAction, in JavaScript: it logs the event and lets the rule set go on. Copy it and make it yours.
// `inbound dev --function NAME=FILE:handler` runs yours in its place. The answer counts when the action's InvocationType is
// RequestResponse: CONTINUE, STOP_RULE or STOP_RULE_SET.

exports.handler = async (event) => {
  console.log(JSON.stringify(event));
  return { disposition: "CONTINUE" };
};
