"""Makes the calls that stand in stdin as JSON, one after the other; prints what boto3 makes of each answer."""
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

asked = json.load(sys.stdin)
config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
client = boto3.client("s3", endpoint_url=asked["url"], config=config)


def call(operation, arguments):
    try:
        answer = getattr(client, operation)(**arguments)
    except ClientError as error:
        metadata = error.response["ResponseMetadata"]
        names = ("StorageClass", "AccessTier")
        return {
            "raised": type(error).__name__,
            "code": error.response["Error"]["Code"],
            "status": metadata["HTTPStatusCode"],
            **{name: error.response[name] for name in names if name in error.response},
        }
    except ParamValidationError as error:
        return {"too_old": str(error)}
    status = answer.pop("ResponseMetadata")["HTTPStatusCode"]
    if "Body" in answer:
        answer["Body"] = answer["Body"].read().decode()
    return {"status": status, **answer}


print(json.dumps([call(*one) for one in asked["calls"]], default=lambda value: value.isoformat()))
