"""AWS: GPU machines on EC2 through boto3, and the double that stands in for EC2."""
