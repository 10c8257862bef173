Feature: CloudEvents 1.0 over HTTP, as a producer meets the adapter

  Every request goes to a running adapter as raw bytes; "the attributes" are those of the event that
  its sink receives.

  Background:
    Given HTTP Protocol Binding is supported

  Scenario Outline: binary mode keeps the media type "<type>" and every byte of the data
    Given an HTTP request
      """
      POST / HTTP/1.1
      Host: adapter
      CE-SpecVersion: 1.0
      CE-ID: b-1
      CE-Source: //shop.example/till?n=4#a
      CE-Type: com.example.sale
      CE-Amount: 12
      Content-Type: <type>

      <data>
      """
    When parsed as HTTP request
    Then the attributes are:
      | key             | value                     |
      | specversion     | 1.0                       |
      | id              | b-1                       |
      | source          | //shop.example/till?n=4#a |
      | type            | com.example.sale          |
      | amount          | 12                        |
      | datacontenttype | <type>                    |
    And the data is the text "<data>"

    Examples:
      | type                      | data            |
      | application/json          | {"n": 1.10}     |
      | application/vnd.sale+json | [ 1, 2 ]        |
      | text/plain; charset=utf-8 | grüß 🌎         |
      | application/xml           | <sale n='1'/>   |
      | application/octet-stream  | {not json       |

  Scenario: header values are percent-decoded once, quoted strings unquoted
    Given an HTTP request
      """
      POST / HTTP/1.1
      Host: adapter
      ce-specversion: 1.0
      ce-id: h-1
      ce-source: s
      ce-type: t
      ce-subject: Euro%20%e2%82%AC%20%F0%9F%98%80
      ce-twice: 100%2541
      ce-quoted: "a \"b\" %25"
      """
    When parsed as HTTP request
    Then the attributes are:
      | key         | value     |
      | specversion | 1.0       |
      | id          | h-1       |
      | source      | s         |
      | type        | t         |
      | subject     | Euro € 😀 |
      | twice       | 100%41    |
      | quoted      | a "b" %   |

  Scenario Outline: structured mode, whatever the media type's spelling: "<type>"
    Given an HTTP request
      """
      POST /any/path HTTP/1.1
      Host: adapter
      Content-Type: <type>

      {"specversion": "1.0", "id": "s-1", "source": "/s", "type": "t", "time": "2026-01-02T03:04:05.123456789+02:00",
       "flag": true, "count": 7, "gone": null, "data": {"a": ["é", null]}}
      """
    When parsed as HTTP request
    Then the attributes are:
      | key             | value                               |
      | specversion     | 1.0                                 |
      | id              | s-1                                 |
      | source          | /s                                  |
      | type            | t                                   |
      | time            | 2026-01-02T03:04:05.123456789+02:00 |
      | flag            | true                                |
      | count           | 7                                   |
      | datacontenttype | application/json                    |
    And the data is equal to the following JSON:
      """
      {"a": ["é", null]}
      """

    Examples:
      | type                                        |
      | application/cloudevents+json                |
      | Application/CloudEvents+JSON; charset=UTF-8 |

  Scenario Outline: structured data of the type <type>
    Given an HTTP request
      """
      POST / HTTP/1.1
      Host: adapter
      Content-Type: application/cloudevents+json

      {"specversion": "1.0", "id": "d-1", "source": "s", "type": "t", "datacontenttype": "<type>", <member>}
      """
    When parsed as HTTP request
    Then the data is the text "<data>"

    Examples:
      | type             | member                    | data     |
      | text/plain       | "data": "a b"             | a b      |
      | application/json | "data": "a b"             | "a b"    |
      | application/json | "data": null              | null     |
      | image/png        | "data_base64": "w7w="     | ü        |
      | application/xml  | "data": "<a/>"            | <a/>     |

  Scenario: a batch is as many events
    Given an HTTP request
      """
      POST / HTTP/1.1
      Host: adapter
      Content-Type: application/cloudevents-batch+json

      [{"specversion": "1.0", "id": "1", "source": "s", "type": "t"},
       {"specversion": "1.0", "id": "2", "source": "s", "type": "t"}]
      """
    When parsed as HTTP request
    Then 2 events arrive

  Scenario Outline: what is no CloudEvent is answered <status>: <fault>
    Given an HTTP request
      """
      POST / HTTP/1.1
      Host: adapter
      ce-id: <id>
      ce-specversion: <version>
      ce-type: t
      ce-source: s
      <more>
      """
    When parsed as HTTP request
    Then the answer is <status>
    And 0 events arrive

    Examples:
      | fault                 | id | version | more                                       | status |
      | an empty id           |    | 1.0     | ce-a: b                                    | 400    |
      | another version       | 1  | 0.3     | ce-a: b                                    | 400    |
      | no time               | 1  | 1.0     | ce-time: noon                              | 400    |
      | time without offset   | 1  | 1.0     | ce-time: 2026-01-02T03:04:05               | 400    |
      | a name with a dash    | 1  | 1.0     | ce-a-b: c                                  | 400    |
      | invalid UTF-8         | 1  | 1.0     | ce-subject: %C0%AF                         | 400    |
      | a type said twice     | 1  | 1.0     | ce-datacontenttype: text/plain             | 400    |
      | an unknown format     | 1  | 1.0     | Content-Type: application/cloudevents+avro | 415    |
      | a batch that is none  | 1  | 1.0     | Content-Type: application/cloudevents-batch+json | 400 |
