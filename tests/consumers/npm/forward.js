// The function of the forwarding rule, written as the README of aws-lambda-ses-forwarder shows. Only where mail leaves is ours.

const { SESv2Client } = require("@aws-sdk/client-sesv2");
const forwarder = require("aws-lambda-ses-forwarder");

const { leaves, ...config } = require("./forward.json");

exports.handler = (event, context, callback) => {
  forwarder.handler(event, context, callback, { config, ses: new SESv2Client({ endpoint: leaves }) });
};
